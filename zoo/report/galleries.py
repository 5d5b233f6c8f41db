"""What the galleries of a run wrote down, as a page shows it: classified images, boxes, texts, and confusions."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zoo.report.images import Images
from zoo.report.run import Run

SPLIT_NAMES = {"test": "test", "val": "validation", "train": "training"}  # the most telling first
MAX_CELLS = 30  # classes up to which the confusion matrix is a table
MOST_CONFUSED = 10
NUM_COLORS = 7


def by_split(run: Run, kind: str) -> list[dict[str, Any]]:
    """What galleries of a kind wrote down, test first."""
    found = [content for content in run.items.values() if content.get("kind") == kind]
    order = list(SPLIT_NAMES)
    return sorted(found, key=lambda one: order.index(one["split"]) if one.get("split") in order else len(order))


def split_name(content: dict[str, Any]) -> str:
    split = str(content.get("split", ""))
    return SPLIT_NAMES.get(split, split)


def classified(run: Run, images: Images, most: int | None = None) -> list[dict[str, Any]]:
    """For each split the images that a classifier was shown, mistakes first and by falling loss.

    Two galleries may have written down the same image, one of them with its relevance map.

    Args:
        run: of the classifier.
        images: from which the page takes them.
        most: how many at most; default all.
    """
    sections = []
    for split, group in itertools.groupby(by_split(run, "classified"), split_name):
        contents = list(group)
        merged: dict[int, dict[str, Any]] = {}
        for content in contents:
            for item in content["items"]:
                merged[item["index"]] = merged.get(item["index"], {}) | item
        ranked = sorted(merged.values(), key=lambda item: (item["right"], -item["loss"]))[:most]
        classes = _numbered(item[key] for item in ranked for key in ("truth", "prediction"))
        about: dict[str, Any] = {}
        for content in contents:
            about |= {key: value for key, value in content.items() if key != "items"}
        items = []
        for item in ranked:
            groups = {classes[item["truth"]], classes[item["prediction"]]}
            pictures = {key: images.take(item.get(key)) for key in ("image", "overlay")}
            items.append({**item, **pictures, "groups": " ".join(map(str, sorted(groups)))})
        sections.append({"split": split, "about": about, "items": items, "classes": classes})
    return sections


def detected(run: Run, images: Images, most: int | None = None) -> list[dict[str, Any]]:
    """For each split the images of a detector, those with the most errors first."""
    sections = []
    for content in by_split(run, "detected"):
        parts = [part for item in content["items"] for part in (*item["objects"], *item["detections"])]
        classes, items = _numbered(part["class"] for part in parts), []
        for item in content["items"]:
            objects, found = ([_drawn(box, item, classes) for box in item[key]] for key in ("objects", "detections"))
            missed, false = sum(not box["found"] for box in objects), sum(not box["right"] for box in found)
            groups = {classes[box["class"]] for box in (*objects, *found)}
            counts = {"missed": missed, "false": false, "errors": missed + false}
            texts = {"objects": objects, "detections": found, "groups": " ".join(map(str, sorted(groups)))}
            items.append({**item, **counts, **texts})
        items = sorted(items, key=lambda item: -item["errors"])[:most]
        for item in items:
            item["image"] = images.take(item["image"])
        sections.append({"split": split_name(content), "about": content, "items": items, "classes": classes})
    return sections


def _drawn(box: dict[str, Any], item: dict[str, Any], classes: dict[str, int]) -> dict[str, Any]:
    """A box within its image, with the number of its color."""
    width, height = item["width"], item["height"]
    x0, x1 = (min(max(float(edge), 0.0), width) for edge in box["box"][::2])
    y0, y1 = (min(max(float(edge), 0.0), height) for edge in box["box"][1::2])
    place = {"x": x0, "y": y0, "w": x1 - x0, "h": y1 - y0, "at_edge": x0 > 0.7 * width, "limit": width}
    return {**box, **place, "color": classes[box["class"]] % NUM_COLORS}


def confusions(run: Run, images: Images) -> list[dict[str, Any]]:
    """For each split the confusion matrix, the table of the classes, and the pairs that are confused most."""
    sections = []
    for content in by_split(run, "confusion"):
        matrix, classes = content["matrix"], content["classes"]
        names, totals = [row["class"] for row in classes], [max(sum(row), 1) for row in matrix]
        rows = [
            [{"count": n, "share": n / total, "strength": (n / total) ** 0.5} for n in row]
            for row, total in zip(matrix, totals, strict=True)
        ]
        pairs = [
            {"truth": names[i], "prediction": names[j], "count": n, "share": n / totals[i]}
            for i, row in enumerate(matrix)
            for j, n in enumerate(row)
            if i != j and n
        ]
        section = {
            "split": split_name(content),
            "names": names,
            "rows": rows if len(names) <= MAX_CELLS else [],
            "picture": "",
            "classes": classes,
            "pairs": sorted(pairs, key=lambda pair: -pair["count"])[:MOST_CONFUSED],
            "seen": sum(map(sum, matrix)),
            "right": sum(matrix[i][i] for i in range(len(matrix))),
        }
        if not section["rows"]:
            section["picture"] = images.picture(run.folder / "pictures" / f"confusion_{content.get('split')}.png")
        sections.append(section)
    return sections


def texts(run: Run) -> list[dict[str, Any]]:
    """The texts that a language model wrote, the newest first."""
    found = [content for content in run.items.values() if content.get("kind") == "texts"]
    return [item for content in found for item in reversed(content["items"])]


def pictures(run: Run, images: Images) -> dict[str, list[dict[str, str]]]:
    """The other pictures of a run by what they are: of activations, samples, and further ones.

    What a page shows otherwise is left out: the curves, and the figures of galleries that wrote their items down.
    """
    shown = {"curves", *run.items}
    files = {path.name: path for path in sorted(run.pictures(), key=lambda path: path.stem == "progress")}
    groups: dict[str, list[dict[str, str]]] = {"activations": [], "samples": [], "others": []}
    for name, path in files.items():
        stem = path.stem
        whole = "samples.png" in files
        if (stem in shown and stem != "samples") or (whole and _is_one_sample(stem)):
            continue
        if path.suffix == ".png" and f"{stem}.gif" in files:
            continue  # it is shown in its place where motion is not wanted
        kind = "activations" if "activation" in stem else "samples" if _is_sample(stem) else "others"
        still = images.picture(path.with_suffix(".png")) if path.suffix == ".gif" else ""
        groups[kind].append({"name": name, "alt": _words(stem), "uri": images.picture(path), "still": still})
    return groups


def _is_sample(stem: str) -> bool:
    return stem in ("samples", "progress", "animation") or _is_one_sample(stem)


def _is_one_sample(stem: str) -> bool:
    return stem == "result" or stem.startswith("sample_")


def _words(stem: str) -> str:
    """The name of a picture in words."""
    head, _, split = stem.rpartition("_")
    if split in SPLIT_NAMES:
        return f"{head.replace('_', ' ')}, {SPLIT_NAMES[split]} set".capitalize()
    return Path(stem).name.replace("_", " ").capitalize()


def _numbered(names: Iterable[str]) -> dict[str, int]:
    """Each name once, in order (numbers by their value), with its place."""
    ordered = sorted(set(names), key=lambda name: (int(name) if name.isdecimal() else float("inf"), name))
    return {name: number for number, name in enumerate(ordered)}
