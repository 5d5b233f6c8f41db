"""The page that compares runs, and the picture of their curves."""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from callbacks.figures.axis import Axis
from callbacks.figures.curves import bars_height, draw_bars, draw_lines, epochs_of, split_of
from callbacks.figures.style import GRAY, add_axes, heading, save_figure, shorten
from callbacks.runtime.duration import duration
from zoo.report import curves, galleries
from zoo.report.images import Images
from zoo.report.page import headline, introduction, state, take_sections
from zoo.report.render import render, write_page
from zoo.report.run import Run, find_run, place_of, read_run
from zoo.report.settings import between
from zoo.report.svg import variable
from zoo.results.documents.prose import sentences

FEWEST, MOST = 2, len(curves.RUN_COLORS)  # runs on a page
MOST_ITEMS, MOST_BOXES = 10, 4  # of a gallery, for each run
PANELS_PER_ROW = 2


def write_comparison(sources: Sequence[str], out: Path | None = None) -> list[Path]:
    """Writes the page that compares runs, and beside it the picture of their curves.

    Args:
        sources: folders of runs, or recipes.
        out: the page; default `runs/compare/TIME.html`.

    Returns:
        The page, and the picture.

    Raises:
        ValueError: for fewer than two runs or too many, or for runs that have no metric in common.
    """
    folders = [find_run(source) for source in sources]
    places = [folder.resolve() for folder in folders]
    if twice := [str(folder) for folder, place in zip(folders, places, strict=True) if places.count(place) > 1]:
        raise ValueError(f"{twice[0]} is given twice: expected different runs; name each once")
    if not FEWEST <= len(folders) <= MOST:
        raise ValueError(
            f"{len(folders)} run{'s are' if len(folders) != 1 else ' is'} given: expected {FEWEST} to {MOST}; "
            "see the folders under runs"
        )
    runs = [read_run(folder) for folder in folders]
    names = labels(runs)
    shared = common_metrics(runs, names)
    page = out or Path("runs", "compare", f"{time.strftime('%Y%m%d-%H%M%S')}.html")
    write_page(page, comparison(runs, names, shared))
    picture = page.with_suffix(".png")
    save_figure(draw(runs, names, shared), picture)
    return [page, picture]


def labels(runs: Sequence[Run]) -> list[str]:
    """What runs are called: by their recipe, else by the seed too, else by their folder."""
    recipes = [run.recipe for run in runs]
    folders = {name.rpartition("/")[0] for name in recipes}
    base = [name.rpartition("/")[2] for name in recipes] if len(folders) == 1 else recipes
    count = Counter(base)
    seeds = [f"{name}, seed {run.config.get('seed_everything')}" for name, run in zip(base, runs, strict=True)]
    named = [name if count[name] == 1 else seed for name, seed in zip(base, seeds, strict=True)]
    count = Counter(named)
    return [
        name if count[name] == 1 else f"{first} {run.folder.resolve().name}"
        for name, first, run in zip(named, base, runs, strict=True)
    ]


def common_metrics(runs: Sequence[Run], names: Sequence[str]) -> dict[str, Axis]:
    """The metrics to be compared, without their split, each with its axis: those that two runs or more have.

    A metric of the same name but with another unit is another one: a detector's loss is no cross-entropy. A run that
    does not say the unit of its metrics is taken at the word of the others.

    Raises:
        ValueError: if no metric is in all runs; it says what each run has.
    """
    owned = [_metrics_of(run) for run in runs]
    counts = Counter(metric for found in owned for metric in found)
    units = {metric: {found[metric] for found in owned if found.get(metric)} for metric in counts}
    shared = [metric for metric, count in counts.items() if count > 1 and len(units[metric]) < 2]
    shared.sort(key=lambda metric: counts[metric] < len(runs))  # first what all runs have
    if not shared or counts[shared[0]] < len(runs):
        each = "; ".join(f"{name}: {_listed(found)}" for name, found in zip(names, owned, strict=True))
        raise ValueError(f"the runs have no metric in common ({each}): expected one that all have; compare other runs")
    return {metric: _axis(metric, runs, names) for metric in shared}


def _metrics_of(run: Run) -> dict[str, str]:
    """The metrics of a run without their split, each with its unit, in the order of its axes; "" if it does not say."""
    found = {name.removeprefix(f"{split_of(name)}/") for name in run.metrics.names}
    ordered = [name for name in run.axes if name in found] + sorted(found - set(run.axes))
    return {name: run.axes[name].label.partition("\n")[0] if name in run.axes else "" for name in ordered}


def _axis(metric: str, runs: Sequence[Run], names: Sequence[str]) -> Axis:
    """The axis of a metric by the first run that has one, and what each run remarks on it, such as smoothed labels."""
    axes = {name: run.axes[metric] for name, run in zip(names, runs, strict=True) if metric in run.axes}
    remarks: dict[str, list[str]] = {}  # each with the runs whose remark it is
    for name, axis in axes.items():
        remarks.setdefault(axis.label.partition("\n")[2], []).append(name)
    told = [
        f"{remark} {', '.join(whose)}" if len(whose) < len(runs) else remark
        for remark, whose in remarks.items()
        if remark
    ]
    axis = next(iter(axes.values()), Axis(metric, metric))
    return axis._replace(label="\n".join([axis.label.partition("\n")[0], *told]))


def data_of(run: Run) -> tuple[Any, ...]:
    """What tells data apart: the class, and those of its arguments that are names, such as a folder."""
    data = run.config.get("data") or {}
    arguments = data.get("init_args") or {}
    names = {key: value for key, value in arguments.items() if isinstance(value, str)}
    return data.get("class_path"), tuple(sorted(names.items()))


def share_data(runs: Sequence[Run]) -> bool:
    """Whether runs have the same data, so that one of them can be the best."""
    return len({data_of(run) for run in runs}) < 2


def complete(shared: dict[str, Axis]) -> dict[str, Axis]:
    """The metrics that are not part of another one, which have curves of their own."""
    return {metric: axis for metric, axis in shared.items() if not axis.part_of}


def _listed(found: dict[str, str]) -> str:
    return ", ".join(f"{name} ({unit})" if unit else name for name, unit in found.items()) or "none"


def comparison(runs: Sequence[Run], names: Sequence[str], shared: dict[str, Axis]) -> str:
    """The page as HTML."""
    images = Images()
    introductions = {run.recipe: place for place, run in reversed(list(enumerate(runs)))}  # each told once
    return render(
        "compare.html.j2",
        title=", ".join(names),
        runs=[
            _about(run, name, place, result, introductions[run.recipe] == place)
            for place, (run, name, result) in enumerate(zip(runs, names, results(runs, shared), strict=True))
        ],
        plots=curves.plots_of_overlays(curves.overlaid(runs, names, complete(shared))),
        figures=figures(runs, shared),
        same_data=share_data(runs),
        differs=between(runs),
        names=names,
        classes=classes(runs),
        classified=[take_sections(run, galleries.classified, images, MOST_ITEMS)[:1] for run in runs],
        detected=[take_sections(run, galleries.detected, images, MOST_BOXES)[:1] for run in runs],
        texts=[galleries.texts(run)[:1] for run in runs],
        pictures=[galleries.pictures(run, images)["samples"] for run in runs],
        left_out=images.left_out,
    )


def results(runs: Sequence[Run], shared: dict[str, Axis]) -> list[str | None]:
    """The metric by which each run is told: for all of them the same one, on the same split, if they have one."""
    found = [headline(run) for run in runs]
    metrics = [metric for metric in shared if metric != "loss"] + [metric for metric in shared if metric == "loss"]
    common = [f"{split}/{metric}" for metric in metrics for split in ("test", "val", "train")]
    for name in (*found, *common):
        if name is not None and all(run.metrics.last(name) is not None for run in runs):
            return [name] * len(runs)
    return found


def _about(run: Run, name: str, place: int, metric: str | None, introduced: bool) -> dict[str, str]:
    """A row of the table of runs."""
    value = None if metric is None else run.metrics.last(metric)
    seconds, tflop, parameters = (run.facts.get(key) for key in ("seconds", "tflop", "parameters"))
    return {
        "name": name,
        "color": variable(curves.RUN_COLORS[place]),
        "intro": sentences(introduction(run))[0] if introduced else "",
        "state": state(run),
        "metric": metric or "",
        "value": "" if metric is None or value is None else curves.value_text(metric, value, run.axes),
        "time": duration(seconds) if seconds else "",
        "work": f"{tflop:.3g} TFLOP" if tflop else "",
        "parameters": f"{parameters:,}".replace(",", "\u202f") if parameters else "",
        "folder": place_of(run.folder),
    }


def figures(runs: Sequence[Run], shared: dict[str, Axis]) -> list[dict[str, Any]]:
    """What each metric has come to in each run, the best ones marked."""
    rows = []
    for metric, axis in shared.items():
        for split in ("test", "val", "train", ""):
            name = f"{split}/{metric}" if split else metric
            values = [run.metrics.last(name) for run in runs]
            having = [run for run, value in zip(runs, values, strict=True) if value is not None]
            known = [value for value in values if value is not None]
            if len(known) < 2:
                continue
            has_best = axis.better and split != "train" and share_data(having)
            best = (max if axis.better == "max" else min)(known) if has_best else None
            texts = ["" if value is None else axis.text.format(axis.factor * value) for value in values]
            best_text = None if best is None else texts[values.index(best)]  # equal ones are equally good
            cells = [{"text": text, "best": text == best_text} for text in texts]
            rows.append({"title": axis.title, "split": curves.SPLITS.get(split, ""), "cells": cells})
    return rows


def classes(runs: Sequence[Run]) -> dict[str, Any] | None:
    """F1 of each class in each run, if all of them were evaluated on the same split of the same classes."""
    found = [{content.get("split"): content for content in galleries.by_split(run, "confusion")} for run in runs]
    for split in galleries.SPLIT_NAMES:
        tables = [{row["class"]: row["f1"] for row in one[split]["classes"]} for one in found if split in one]
        if len(tables) == len(runs) and all(table.keys() == tables[0].keys() for table in tables):
            rows = [(name, [table[name] for table in tables]) for name in tables[0]]
            return {"split": galleries.SPLIT_NAMES[split], "rows": rows}
    return None


def draw(runs: Sequence[Run], names: Sequence[str], shared: dict[str, Axis]) -> Figure:
    """The curves of all runs: a panel for each plot of the page, and one key for all."""
    overlays = curves.overlaid(runs, names, complete(shared))
    wide, head = 5.6, 0.6 + 0.2 * (-(-len(runs) // 3))
    columns = min(PANELS_PER_ROW, max(len(overlays), 1))
    heights = [bars_height(one.curves) if epochs_of(one.curves) < 2 else 2.85 for one in overlays] or [1.0]
    rows = [1.1 + max(heights[i : i + columns]) for i in range(0, len(heights), columns)]
    figure = Figure((wide * columns, head + sum(rows)), facecolor="white")
    heading(
        figure,
        "Runs compared",
        "validation drawn through with filled points, training dashed with hollow ones, test dotted",
    )
    width, height = figure.get_size_inches()
    for place, name in enumerate(names):
        color = curves.RUN_COLORS[place]
        x, y = 0.15 + (place % 3) * (width - 0.2) / 3, height - 0.72 - 0.2 * (place // 3)
        figure.text(x / width, y / height, f"━ {name}".replace("$", r"\$"), color=color, size=9, weight="bold")
    for place, ((axis, over, found), tall) in enumerate(zip(overlays, heights, strict=False)):
        row, column = divmod(place, columns)
        axes = add_axes(figure, 0.8 + column * wide, sum(rows[row:]) - 0.6 - tall, wide - 1.0, tall)
        label, _, remarks = axis.label.partition("\n")
        axes.set_title(axis.title, loc="left", weight="bold", pad=18 if remarks else 6)
        text = shorten(remarks.replace("\n", ", "), 75).replace("$", r"\$")
        axes.annotate(text, (0, 1), (0, 5), xycoords="axes fraction", textcoords="offset points", size=9, color=GRAY)
        (draw_bars if epochs_of(found) < 2 else draw_lines)(axes, found, axis._replace(label=label), over)
    if not overlays:
        figure.text(0.5, 0.4, "no curves", color=GRAY, ha="center")
    return figure
