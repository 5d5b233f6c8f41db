"""What tests import: small data sets, a Trainer that leaves no trace, and writers of files in real formats."""

import os
import pickle
import random
import struct
from pathlib import Path

import numpy as np
import torch

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
from lightning import Callback, LightningModule, Trainer
from PIL import Image

from datamodules.image import ImageData
from datamodules.loader import InMemory


class Synthetic(ImageData):
    """Noise with labels. The sizes are of the three splits."""

    def __init__(self, sizes=(40, 21, 17), image_shape=(1, 8, 8), num_classes=10, **options) -> None:
        super().__init__(val_size=0, **options)
        self.sizes, self.image_shape = sizes, image_shape
        self.classes = tuple(map(str, range(num_classes)))
        self.mean, self.std = (0.5,) * image_shape[0], (0.25,) * image_shape[0]

    def make_datasets(self) -> dict[str, InMemory]:
        draw = torch.Generator().manual_seed(0)
        return {
            split: InMemory(
                torch.randint(0, 256, (n, *self.image_shape), generator=draw, dtype=torch.uint8),
                torch.randint(0, self.num_classes, (n,), generator=draw),
            )
            for split, n in zip(("train", "val", "test"), self.sizes, strict=True)
        }


class Recorder(LightningModule):
    """Learns nothing and keeps every batch it is given, in `seen`, by the name of the step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[str, list] = {"train": [], "val": [], "test": []}

    def training_step(self, batch, batch_idx):
        self.seen["train"].append(batch)
        return self.weight * 0.0

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.seen["val" if dataloader_idx == 0 else "test"].append(batch)

    def test_step(self, batch, batch_idx):
        self.seen["test"].append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def quiet_trainer(**options) -> Trainer:
    """One CPU process, no output, no files."""
    silent = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return Trainer(**({"accelerator": "cpu", "devices": 1} | dict.fromkeys(silent, False) | options))


def record(data: ImageData, *callbacks: Callback, **options) -> Recorder:
    """Fits a `Recorder` on `data`."""
    module = Recorder()
    trainer = quiet_trainer(callbacks=list(callbacks), **({"max_epochs": 1, "num_sanity_val_steps": 0} | options))
    trainer.fit(module, datamodule=data)
    return module


def fingerprint_of_global_randomness() -> tuple:
    """Changes if anything draws from a global generator."""
    legacy = np.random.get_state()  # noqa: NPY002 - the point is that nobody uses it
    return torch.get_rng_state().tolist(), random.getstate(), legacy[1].tolist(), legacy[2]


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)  # 8: unsigned bytes
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_pickle(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))


def draw_picture(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A colorful image (W, H): smooth waves, so that JPEG keeps it."""
    width, height = size
    tilt = np.random.default_rng(seed).uniform(0.02, 0.4, (2, 3))
    y, x = np.mgrid[:height, :width][..., None]
    return Image.fromarray((127.5 + 127.5 * np.sin(x * tilt[0] + y * tilt[1] + seed)).astype(np.uint8))


def verse(words: int = 6000) -> str:
    """Lines of words in random order."""
    known = "to be or not to be that is the question whether tis nobler in the mind to suffer".split()  # noqa: SIM905
    draw = random.Random(0)
    return "".join(draw.choice(known) + ("\n" if n % 7 == 6 else " ") for n in range(words))


def write_voc(root: Path, splits: dict[str, int]) -> None:
    """A Pascal VOC folder: images (64, 48) of three classes, up to three boxes each, some of them without."""
    draw, number = np.random.default_rng(0), 0
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    for split, count in splits.items():
        stems = [f"cell_{number + i:03}" for i in range(count)]
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(stems) + "\n")
        for i, stem in enumerate(stems, number):
            draw_picture(i, (64, 48)).save(root / "JPEGImages" / f"{stem}.jpg")
            objects = [
                f"<object><name>{('RBC', 'WBC', 'Platelets')[(i + k) % 3]}</name><bndbox><xmin>{x}</xmin>"
                f"<ymin>{y}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
                for k, (x, y, w, h) in enumerate(draw.integers((0, 0, 8, 8), (40, 28, 25, 21), (i % 4, 4)))
            ]
            (root / "Annotations" / f"{stem}.xml").write_text(
                f"<annotation><filename>{stem}.jpg</filename><size><width>64</width><height>48</height>"
                f"<depth>3</depth></size>{''.join(objects)}</annotation>"
            )
        number += count


TINY_NAMES = {"n002": "goldfish, Carassius auratus", "n003": "teapot", "n001": "lion, king of beasts"}
TINY_TRAIN, TINY_VAL = 10, 4  # images of a class


def write_tiny_imagenet(root: Path, inner: str = "images") -> Path:
    """A folder in the original layout, of three classes; the numbers in `wnids.txt` are not sorted."""
    folder = root / "tiny-imagenet-200"
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in TINY_NAMES))
    words = {"n000": "nothing, of another class"} | TINY_NAMES
    (folder / "words.txt").write_text("".join(f"{wnid}\t{words[wnid]}\n" for wnid in words))
    annotations = []
    for label, wnid in enumerate(sorted(TINY_NAMES)):
        images = folder / "train" / wnid / inner
        images.mkdir(parents=True)
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t10\t63\t58\n")
        for i in range(TINY_TRAIN + TINY_VAL):
            image = draw_picture(100 * label + i, (64, 64))
            if i == 3:
                image = image.convert("L")
            if i < TINY_TRAIN:
                image.save(images / f"{wnid}_{i}.JPEG")
            else:
                name = f"val_{(i - TINY_TRAIN) * len(TINY_NAMES) + label}.JPEG"  # the classes in turn
                image.save(folder / "val" / "images" / name)
                annotations.append(f"{name}\t{wnid}\t0\t31\t60\t60\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(sorted(annotations)))
    return folder
