"""The page on one run."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from callbacks.runtime.duration import duration
from zoo.command import recipes
from zoo.command.recipes import Expect
from zoo.report import curves, galleries
from zoo.report.images import Images
from zoo.report.render import render, write_page
from zoo.report.run import Run, place_of, read_run
from zoo.report.settings import from_recipe
from zoo.results.documents.prose import sentences

NAME = "report.html"  # in the run folder
PRECISIONS = {"64": "64-bit", "32": "32-bit", "16": "16-bit", "bf16": "bfloat16"}  # of the Trainer
STATES = {"finished": "finished", "interrupted": "interrupted", "failed": "failed", "running": "running"}


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Writes the page on a run, by default into its folder.

    Returns:
        The file.

    Raises:
        ValueError: if a file of the run cannot be read.
    """
    path = folder / NAME if out is None else out
    write_page(path, report(read_run(folder)))
    return path


def report(run: Run) -> str:
    """The page on a run as HTML."""
    images = Images()
    return render(
        "report.html.j2",
        title=run.recipe,
        intro=sentences(introduction(run))[0] if run.facts.get("own_data") else introduction(run),
        data=own_data(run),
        state=state(run),
        tiles=tiles(run),
        facts=facts(run),
        differs=from_recipe(run),
        plots=curves.plots_of(run),
        figures=curves.figures_of(run),
        tables=curves.tables_of(run.metrics),
        confusions=take_sections(run, galleries.confusions, images),
        classified=take_sections(run, galleries.classified, images),
        detected=take_sections(run, galleries.detected, images),
        texts=take_sections(run, galleries.texts),
        pictures=galleries.pictures(run, images),
        config=yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True),
        command=None if run.command is None else f"zoo {shlex.join(run.command)}",
        left_out=images.left_out,
    )


def take_sections(run: Run, make: Callable[..., list[dict[str, Any]]], *arguments: Any) -> list[dict[str, Any]]:
    """What `make`, of the module `galleries`, makes of a run.

    Raises:
        ValueError: if the run has a file that no gallery has written.
    """
    try:
        return make(run, *arguments)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(
            f"{run.folder / 'items'} has a file that no gallery wrote ({type(error).__name__}: {error}): expected "
            "those of this version of the zoo; remove the folder, and evaluate the run again by `zoo test`"
        ) from None


def introduction(run: Run) -> str:
    """What the recipe says of itself: its first lines."""
    if text := run.facts.get("title"):
        return str(text)
    return recipe_title(recipes.find(run.recipe)) if run.recipe in recipes.names() else ""


def own_data(run: Run) -> str:
    """What is known of data of one's own, of which the recipe tells nothing; "" for those of the recipe."""
    if not run.facts.get("own_data"):
        return ""
    arguments = (run.config.get("data") or {}).get("init_args") or {}
    known = [value for key, value in arguments.items() if isinstance(value, str) and key != "data_dir"]
    counts = dict(run.facts.get("data_sizes") or {})
    for content in [content for kind in ("confusion", "detected") for content in galleries.by_split(run, kind)]:
        names = {"classes": len(content.get("classes", ()))} if "matrix" in content else {}
        seen = sum(map(sum, content["matrix"])) if names else content.get("seen", 0)
        counts = names | {galleries.split_name(content): seen} | counts
    told = [f"{name}: {number:,}".replace(",", "\u202f") for name, number in counts.items()]
    return f"Data: {', '.join(known)}" + (f" ({', '.join(told)})" if told else "")


def recipe_title(path: Path) -> str:
    """The comment that a recipe begins with, on one line."""
    lines = recipes.header(path)
    return "" if lines and lines[0].startswith("lightning.pytorch==") else " ".join(lines)


def state(run: Run) -> str:
    """Whether the training has come to its end, and how many epochs it has done."""
    known = STATES.get(str(run.facts.get("state")), "")
    epochs, of = run.metrics.epochs, (run.config.get("trainer") or {}).get("max_epochs")
    count = f"{epochs} of {of} epochs" if isinstance(of, int) and of > 0 else f"{epochs} epochs"
    return f"{known}, {count}" if known else count


def expectation(run: Run) -> Expect | None:
    """What the recipe was to reach, if it says that; it does not belong to data of one's own."""
    content = None if run.facts.get("own_data") else run.config.get("expect")
    try:
        return Expect(**content) if isinstance(content, dict) else None
    except (TypeError, ValueError):
        return None


def headline(run: Run) -> str | None:
    """The metric by which a run is told: that of its target if it has it, else of test or of validation."""
    expect, names = expectation(run), run.metrics.names
    wanted = [expect.metric, expect.metric.replace("test/", "val/")] if expect else []
    better = [f"{split}/{metric}" for metric in run.axes for split in ("test", "val") if metric != "loss"]
    for name in (*wanted, *better, "test/loss", "val/loss", "train/loss"):
        if name in names and run.metrics.last(name) is not None:
            return name
    return min(names, default=None)


def tiles(run: Run) -> list[dict[str, str]]:
    """The figures that a page begins with."""
    made, name, expect = [], headline(run), expectation(run)
    if name is not None and (value := run.metrics.last(name)) is not None:
        note = ""
        if expect is not None and expect.metric == name:
            sign = "at least" if expect.at_most is None else "at most"
            target = curves.value_text(name, expect.target, run.axes)
            note = f"target {sign} {target}: {'met' if expect.met(value) else 'missed'}"
        made.append({"name": name, "value": curves.value_text(name, value, run.axes), "note": note})
    for key, title, text in (
        ("seconds", "training time", lambda n: duration(n)),
        ("tflop", "work of training", lambda n: f"{n:.3g} TFLOP"),
        ("parameters", "parameters", lambda n: f"{n:,}".replace(",", "\u202f")),
    ):
        number = run.facts.get(key)
        if isinstance(number, (int, float)) and number:
            made.append({"name": title, "value": text(number), "note": ""})
    return made


def plain_machine(device: str) -> str:
    """A machine as the recorder writes it down, in plain English.

    >>> plain_machine("AMD EPYC, 1 thread(s), AVX2, 32-true"), plain_machine("2 x NVIDIA H100, bf16-mixed")
    ('AMD EPYC, 1 thread, AVX2, 32-bit precision', '2 x NVIDIA H100, bfloat16 mixed precision')
    """
    device = re.sub(r"\b1 thread\(s\)", "1 thread", device).replace("thread(s)", "threads")
    return re.sub(
        r"\b(\w+)-(true|mixed)$",
        lambda found: f"{PRECISIONS.get(found[1], found[1])}{' mixed' * (found[2] == 'mixed')} precision",
        device,
    )


def facts(run: Run) -> list[tuple[str, str]]:
    """What else is known of a run, by name."""
    given = run.facts
    rows = [
        ("recipe", run.recipe),
        ("command", "" if run.command is None else f"zoo {shlex.join(run.command)}"),
        ("run", place_of(run.folder)),
        ("machine", plain_machine(str(given.get("device", "")))),
        ("versions", given.get("versions", "")),
        ("commit", given.get("commit", "")),
        ("started", given.get("started", "")),
        ("seed", run.config.get("seed_everything", "")),
        ("samples seen", f"{given['samples']:,}".replace(",", "\u202f") if given.get("samples") else ""),
    ]
    return [(name, str(value)) for name, value in rows if value not in ("", None)]
