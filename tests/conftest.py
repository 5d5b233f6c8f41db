"""What the tests share: small data in the data sets' own formats, and a Trainer that leaves no trace."""

import hashlib
import importlib
import inspect
import os
import pickle
import pkgutil
import random
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

from lightning import Callback, LightningModule, Trainer
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import vgg16

import zoo.classification
from datamodules.base import ImageData
from datamodules.cifar10 import CIFAR10
from datamodules.fashion_mnist import FashionMNIST
from datamodules.loader import InMemory
from datamodules.mnist import MNIST
from zoo.classification.classifier import Classifier

torch.set_num_threads(min(2, torch.get_num_threads()))  # the nets are tiny: more threads only wait for each other


@pytest.fixture(autouse=True)
def surroundings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real data only for tests marked `data`; no seed left over from another test."""
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    if request.node.get_closest_marker("data") is None:
        monkeypatch.delenv("ZOO_DATA", raising=False)
    elif "ZOO_DATA" not in os.environ:
        pytest.skip("needs real data: set ZOO_DATA to the folder that holds them")


class Synthetic(ImageData):
    """Noise with labels. The sizes are of the three splits."""

    def __init__(self, sizes=(40, 21, 17), image_shape=(1, 8, 8), num_classes=10, **options) -> None:
        super().__init__(val_size=0, **options)
        self.sizes, self.image_shape = sizes, image_shape
        self.classes = tuple(map(str, range(num_classes)))
        self.mean, self.std = (0.5,) * image_shape[0], (0.25,) * image_shape[0]

    def split(self) -> dict[str, InMemory]:
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


def classifiers() -> list[type[Classifier]]:
    """Every system on the shelf `zoo.classification`, found by looking."""
    names = [
        f"{zoo.classification.__name__}.{found.name}" for found in pkgutil.iter_modules(zoo.classification.__path__)
    ]
    members = [member for name in names for member in vars(importlib.import_module(name)).values()]
    systems = {m for m in members if isinstance(m, type) and issubclass(m, Classifier) and m is not Classifier}
    return sorted(systems, key=lambda system: system.__qualname__)


def usual_shape(system: type[Classifier]) -> tuple[int, int, int]:
    """(C, H, W) of the images that a system takes by default: grey ones of 28 pixels, colour ones of 32."""
    channels = inspect.signature(system).parameters["in_channels"].default
    return (channels, *{1: (28, 28), 3: (32, 32)}[channels])


def fingerprint_of_global_randomness() -> tuple:
    """Changes if anything draws from a global generator."""
    legacy = np.random.get_state()  # noqa: NPY002 - the point is that nobody uses it
    return torch.get_rng_state().tolist(), random.getstate(), legacy[1].tolist(), legacy[2]


def _write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)  # 8: unsigned bytes
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def _write_pickle(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.fixture(scope="session")
def vgg_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VGG16 up to conv4_1 with weights drawn by lot, as a safetensors file that wants pixels in 0..255."""
    draw, state = torch.Generator().manual_seed(0), {}
    with torch.device("meta"):
        shapes = vgg16().features[:18].state_dict()
    for name, value in shapes.items():
        spread = (2 / value[0].numel()) ** 0.5 if value.ndim > 1 else 0.0
        state[f"features.{name}"] = (spread * torch.randn(value.shape, generator=draw)).half()
    path = tmp_path_factory.mktemp("weights") / "vgg16.safetensors"
    save_file(state, path, {"input": "RGB in [0,1], mean (0.5,0.4,0.3), std (1/255,1/255,1/255)"})
    return path


@pytest.fixture
def fake_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vgg_weights: Path) -> Path:
    """A folder with MNIST and Fashion-MNIST (120 + 40 images), CIFAR-10 (200 + 40), pictures, weights and text, by lot.

    In the data sets' own files; the checksums in our datamodules and in torchvision are those of these files.
    """
    folder, draw = tmp_path / "data", np.random.default_rng(0)
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "vgg16_hed_features.safetensors").symlink_to(vgg_weights)
    for i, name in enumerate(("content/astronaut", "content/chelsea", "style/starry_night")):
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        draw_picture(i, (110, 90)).save(folder / "images" / f"{name}.jpg")

    write_voc(folder / "bccd" / "VOCdevkit" / "VOC2007", {"trainval": 30, "test": 6})
    (folder / "tinyshakespeare").mkdir()
    (folder / "tinyshakespeare" / "input.txt").write_text(verse())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # where trained tokenisers are kept

    def images(n: int, *shape: int) -> np.ndarray:
        return draw.integers(0, 256, (n, *shape), dtype=np.uint8)

    for name in ("MNIST", "FashionMNIST"):
        for split, n in (("train", 120), ("t10k", 40)):
            _write_idx(folder / name / "raw" / f"{split}-images-idx3-ubyte", images(n, 28, 28))
            _write_idx(folder / name / "raw" / f"{split}-labels-idx1-ubyte", np.arange(n) % 10)
    for file in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        content = {"data": images(40, 3072), "labels": [i % 10 for i in range(40)]}
        _write_pickle(folder / "cifar-10-batches-py" / file, content)
    _write_pickle(folder / "cifar-10-batches-py" / "batches.meta", {"label_names": list(CIFAR10.classes)})

    for data in (MNIST, FashionMNIST, CIFAR10):
        md5 = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in data.checksums}
        monkeypatch.setattr(data, "checksums", md5)
    checksum = {Path(name).name: md5 for name, md5 in CIFAR10.checksums.items()}
    theirs = CIFAR10.dataset
    for files in ("train_list", "test_list"):
        monkeypatch.setattr(theirs, files, [[name, checksum[name]] for name, _ in getattr(theirs, files)])
    monkeypatch.setattr(theirs, "meta", theirs.meta | {"md5": checksum["batches.meta"]})
    return folder


def draw_picture(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A colourful picture (W, H): smooth waves, so that JPEG keeps it."""
    width, height = size
    tilt = np.random.default_rng(seed).uniform(0.02, 0.4, (2, 3))
    y, x = np.mgrid[:height, :width][..., None]
    return Image.fromarray((127.5 + 127.5 * np.sin(x * tilt[0] + y * tilt[1] + seed)).astype(np.uint8))


def verse(words: int = 6000) -> str:
    """Lines of words in an order drawn by lot."""
    known = "to be or not to be that is the question whether tis nobler in the mind to suffer".split()  # noqa: SIM905
    draw = random.Random(0)
    return "".join(draw.choice(known) + ("\n" if n % 7 == 6 else " ") for n in range(words))


def write_voc(root: Path, splits: dict[str, int]) -> None:
    """A Pascal VOC folder: pictures (64, 48) of three classes, up to three boxes each, some of them without."""
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


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of two classes, "bird" with 8 JPEG and "cat" with 12 PNG files, all of different sizes."""
    folder = tmp_path / "pictures"
    for name, suffix, count in (("bird", "jpg", 8), ("cat", "png", 12)):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            draw_picture(seed=i + 100 * count, size=(30 + i, 50 - i)).save(folder / name / f"{i:02}.{suffix}")
    return folder
