"""Images a second of the same augmentations in three libraries, on one thread.

    python -m experiments.studies.augmentation_speed [FOLDER]

writes augmentation_speed.png and augmentation_speed.csv. The images have 32 x 32 pixels, as in CIFAR-10. albumentations
works on one array at a time, torchvision's transforms on one image or on a batch, for which they draw once, and
datamodules.augment.images on a batch with a draw for each image. Every one gets the images in the form that it works on
(uint8; float32 for the zoo's). Each row of the table is one augmentation, and the last all of them in turn. Under
`outcomes` is how many different images came out of 64 equal ones: 1 means that the batch shared one draw. For small
images the calls cost more than the pixels, so batches are much faster; for large photographs that is not so. Time is
processor time; it depends on the machine, the ratios less so.
"""

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else it asks the network for its newest version
import albumentations
import torch
from matplotlib.figure import Figure
from torchvision.transforms import v2

from callbacks.figures.style import BLUE, GRAY, GREEN, ORANGE, VERMILION
from datamodules.augment.images import Affine, Augmentation, Crop, Cutout, Flip
from datamodules.batches import Labelled
from experiments.studies import Row, panels, publish, run

SIDE, BATCH = 32, 256
OURS: dict[str, list[Augmentation]] = {
    "flip": [Flip()],
    "crop, padding 4": [Crop(4)],
    "cutout 8": [Cutout(8)],
    "rotate and scale": [Affine(degrees=15, scale=0.1)],
}
TORCHVISION: dict[str, list[v2.Transform]] = {
    "flip": [v2.RandomHorizontalFlip()],
    "crop, padding 4": [v2.RandomCrop(SIDE, padding=4)],
    "cutout 8": [v2.RandomErasing(p=1, scale=(1 / 16, 1 / 16), ratio=(1, 1))],
    "rotate and scale": [v2.RandomAffine(15, scale=(0.9, 1.1), interpolation=v2.InterpolationMode.BILINEAR)],
}
ALBUMENTATIONS: dict[str, list[Any]] = {
    "flip": [albumentations.HorizontalFlip(p=0.5)],
    "crop, padding 4": [albumentations.PadIfNeeded(SIDE + 8, SIDE + 8), albumentations.RandomCrop(SIDE, SIDE)],
    "cutout 8": [albumentations.CoarseDropout((1, 1), (8, 8), (8, 8), p=1)],
    "rotate and scale": [albumentations.Affine(rotate=(-15, 15), scale=(0.9, 1.1), p=1)],
}
for steps in (OURS, TORCHVISION, ALBUMENTATIONS):
    steps["all of them"] = [step for few in list(steps.values()) for step in few]
Augment = Callable[[torch.Tensor], Iterable[torch.Tensor]]


def with_albumentations(name: str) -> Augment:
    compose = albumentations.Compose(ALBUMENTATIONS[name])
    return lambda images: [
        torch.from_numpy(compose(image=image)["image"]).permute(2, 0, 1) for image in images.permute(0, 2, 3, 1).numpy()
    ]


def with_torchvision(name: str, batched: bool) -> Augment:
    compose = v2.Compose(TORCHVISION[name])
    return compose if batched else lambda images: [compose(image) for image in images]


def with_ours(name: str) -> Augment:
    generator = torch.Generator().manual_seed(0)

    def augment(images: torch.Tensor) -> torch.Tensor:
        batch = Labelled(images, torch.zeros(len(images)))
        for step in OURS[name]:
            batch = step(batch, generator)
        return batch.image

    return augment


LIBRARIES: dict[str, tuple[Callable[[str], Augment], torch.dtype, str]] = {
    "albumentations, image by image": (with_albumentations, torch.uint8, ORANGE),
    "torchvision, image by image": (lambda name: with_torchvision(name, False), torch.uint8, VERMILION),
    "torchvision, a batch": (lambda name: with_torchvision(name, True), torch.uint8, GREEN),
    "datamodules.augment, a batch": (with_ours, torch.float32, BLUE),
}


def images(count: int, dtype: torch.dtype, equal: bool = False) -> torch.Tensor:
    """(count, 3, SIDE, SIDE) noise: 0..255 as uint8, 0..1 as float32."""
    draw = torch.Generator().manual_seed(0)
    shape = (1 if equal else count, 3, SIDE, SIDE)
    noise = torch.randint(1, 256, shape, generator=draw, dtype=torch.uint8).expand(count, -1, -1, -1).contiguous()
    return noise if dtype == torch.uint8 else noise.float() / 255


def speed(augment: Augment, batch: torch.Tensor, seconds: float) -> float:
    """Images a second of processor time, after a first batch that is not timed."""
    augment(batch)
    done, spent, began = 0, 0.0, time.process_time()
    while not done or spent < seconds:
        augment(batch)
        done, spent = done + len(batch), time.process_time() - began
    return done / spent


def row(library: str, name: str, seconds: float) -> Row:
    """A line of the table."""
    make, dtype, _ = LIBRARIES[library]
    augment = make(name)
    outcomes = {tuple(image.flatten().tolist()) for image in augment(images(64, dtype, equal=True))}
    rate = speed(augment, images(BATCH, dtype), seconds)
    return {"augmentation": name, "library": library, "images a second": rate, "outcomes": len(outcomes)}


def draw(rows: list[Row]) -> Figure:
    title = f"Images of {SIDE} x {SIDE} pixels a second, on one thread"
    figure, (axes,) = panels(title, 1, 1, (11, 6))
    for i, name in enumerate(OURS):
        for j, (library, (_, _, color)) in enumerate(LIBRARIES.items()):
            (line,) = (row for row in rows if row["augmentation"] == name and row["library"] == library)
            place, rate = i + (j - 1.5) * 0.2, float(line["images a second"] or 0)
            axes.barh(place, rate, 0.18, color=color, label=library if i == 0 else None)
            note = f"{rate:,.0f}" + (", one draw" if line["outcomes"] == 1 else "")
            axes.annotate(note, (rate, place), (4, 0), textcoords="offset points", va="center", size=8.5, color=GRAY)
    axes.set_yticks(range(len(OURS)), list(OURS))
    slowest, fastest = (end(float(row["images a second"] or 0) for row in rows) for end in (min, max))
    axes.set(xscale="log", xlim=(0.5 * slowest, 30 * fastest), ylim=(len(OURS) - 0.5, -0.5), xlabel="images a second")
    axes.legend(frameon=False, loc="lower right")
    return figure


def main(folder: Path, seconds: float = 0.5) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = [row(library, name, seconds) for name in OURS for library in LIBRARIES]
    torch.set_num_threads(threads)
    publish(folder, "augmentation_speed", draw(rows), rows)


if __name__ == "__main__":
    run(main, __doc__)
