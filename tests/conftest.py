"""Fixtures of all tests: small data in the data sets' own formats, and clean surroundings."""

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # albumentations would look for updates on the network at import
from safetensors.torch import save_file
from torchvision.models import squeezenet1_0, vgg16

from datamodules.images.cifar10 import CIFAR10
from datamodules.images.fashion_mnist import FashionMNIST
from datamodules.images.mnist import MNIST
from helpers import draw_picture, verse, write_idx, write_pickle, write_tiny_imagenet, write_voc

# One thread in each pytest process: two processes of two threads on two cores slow each other down tenfold.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def surroundings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real data only for tests marked `data`; no seed left over from another test."""
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    if request.node.get_closest_marker("data") is None:
        monkeypatch.delenv("ZOO_DATA", raising=False)
    elif "ZOO_DATA" not in os.environ:
        pytest.skip("needs real data: set ZOO_DATA to the folder that holds them")


@pytest.fixture(scope="session")
def vgg_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VGG16 up to conv4_1 with random weights, as a safetensors file that expects pixels in 0..255."""
    draw, state = torch.Generator().manual_seed(0), {}
    with torch.device("meta"):
        shapes = vgg16().features[:18].state_dict()
    for name, value in shapes.items():
        spread = (2 / value[0].numel()) ** 0.5 if value.ndim > 1 else 0.0
        state[f"features.{name}"] = (spread * torch.randn(value.shape, generator=draw)).half()
    path = tmp_path_factory.mktemp("weights") / "vgg16.safetensors"
    save_file(state, path, {"input": "RGB in [0,1], mean (0.5,0.4,0.3), std (1/255,1/255,1/255)"})
    return path


@pytest.fixture(scope="session")
def data_files(tmp_path_factory: pytest.TempPathFactory, vgg_weights: Path) -> Path:
    """Random MNIST and Fashion-MNIST (120 + 40 images), CIFAR-10 (200 + 40), images, weights and text.

    In the data sets' own files.
    """
    folder, draw = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    (folder / "weights").mkdir()
    (folder / "weights" / "vgg16_hed_features.safetensors").symlink_to(vgg_weights)
    for i, name in enumerate(("content/astronaut", "content/chelsea", "style/starry_night")):
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        draw_picture(i, (110, 90)).save(folder / "images" / f"{name}.jpg")

    write_voc(folder / "bccd" / "VOCdevkit" / "VOC2007", {"trainval": 30, "test": 6})
    write_tiny_imagenet(folder)
    save_file(squeezenet1_0().half().state_dict(), folder / "weights" / "squeezenet1_0.safetensors")
    (folder / "tinyshakespeare").mkdir()
    (folder / "tinyshakespeare" / "input.txt").write_text(verse())

    def images(n: int, *shape: int) -> np.ndarray:
        return draw.integers(0, 256, (n, *shape), dtype=np.uint8)

    for name in ("MNIST", "FashionMNIST"):
        for split, n in (("train", 120), ("t10k", 40)):
            write_idx(folder / name / "raw" / f"{split}-images-idx3-ubyte", images(n, 28, 28))
            write_idx(folder / name / "raw" / f"{split}-labels-idx1-ubyte", np.arange(n) % 10)
    for file in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        content = {"data": images(40, 3072), "labels": [i % 10 for i in range(40)]}
        write_pickle(folder / "cifar-10-batches-py" / file, content)
    write_pickle(folder / "cifar-10-batches-py" / "batches.meta", {"label_names": list(CIFAR10.classes)})
    return folder


@pytest.fixture
def fake_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_files: Path) -> Path:
    """A folder of small random data, see `data_files`; the checksums that are expected of data sets are theirs."""
    folder = Path(shutil.copytree(data_files, tmp_path / "data", symlinks=True))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # where trained tokenizers are kept
    for data in (MNIST, FashionMNIST, CIFAR10):
        md5 = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in data.checksums}
        monkeypatch.setattr(data, "checksums", md5)
    checksum = {Path(name).name: md5 for name, md5 in CIFAR10.checksums.items()}
    theirs = CIFAR10.dataset
    for files in ("train_list", "test_list"):
        monkeypatch.setattr(theirs, files, [[name, checksum[name]] for name, _ in getattr(theirs, files)])
    monkeypatch.setattr(theirs, "meta", theirs.meta | {"md5": checksum["batches.meta"]})
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of two classes, "bird" with 8 JPEG and "cat" with 12 PNG files, all of different sizes."""
    folder = tmp_path / "pictures"
    for name, suffix, count in (("bird", "jpg", 8), ("cat", "png", 12)):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            draw_picture(seed=i + 100 * count, size=(30 + i, 50 - i)).save(folder / name / f"{i:02}.{suffix}")
    return folder
