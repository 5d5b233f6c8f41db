"""Tiny-ImageNet in its original layout: names, splits, what is kept decoded, and what is wrong with a folder."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.images import tiny_imagenet
from datamodules.images.tiny_imagenet import TinyImageNet
from helpers import TINY_TRAIN as TRAIN
from helpers import TINY_VAL as VAL
from helpers import draw_picture, write_tiny_imagenet


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_imagenet(tmp_path)


def prepared(folder: Path, **options) -> TinyImageNet:
    data = TinyImageNet(data_dir=str(folder.parent), **({"val_size": 6} | options))
    data.setup("fit")
    return data


def original(label: int, i: int) -> np.ndarray:
    return np.asarray(draw_picture(100 * label + i, (64, 64))).transpose(2, 0, 1)


def is_image_of(image: torch.Tensor, label: int, numbers: range) -> bool:
    """Whether it is one of the drawings of the class, but for the loss by JPEG."""
    return any(np.abs(image.numpy().astype(float) - original(label, i)).mean() < 12 for i in numbers if i != 3)


@pytest.mark.parametrize("inner", ["images", "."])
def test_the_official_split_tests_on_the_validation_images(tmp_path, inner):
    data = prepared(write_tiny_imagenet(tmp_path, inner))
    assert data.classes == ("lion", "goldfish", "teapot")
    assert (data.num_classes, data.in_channels) == (3, 3)
    assert {split: len(part) for split, part in data.datasets.items()} == {"train": 24, "val": 6, "test": 12}
    test = data.datasets["test"]
    assert test.images.shape == (12, 3, 64, 64)
    assert test.labels.bincount().tolist() == [VAL] * 3
    for part, numbers in (("train", range(TRAIN)), ("val", range(TRAIN)), ("test", range(TRAIN, TRAIN + VAL))):
        dataset = data.datasets[part]
        right = [is_image_of(*sample, numbers) for sample in zip(dataset.images, dataset.labels.tolist(), strict=True)]
        assert sum(right) >= len(right) - 3  # the gray ones


def test_gray_images_become_rgb(folder):
    images = torch.cat([prepared(folder).datasets[split].images for split in ("train", "val")])
    gray = (images == images[:, :1]).flatten(1).all(1)
    assert gray.sum() == 3


def test_70_30_divides_each_class_and_always_in_the_same_way(folder):
    runs = [prepared(folder, split="70/30", seed=seed) for seed in (1, 2)]
    for split, count in (("train", 24), ("val", 6), ("test", 12)):
        one, other = (run.datasets[split] for run in runs)
        assert len(one) == count
        assert torch.equal(one.images, other.images)
    sets = runs[0].datasets
    labels = torch.cat([sets["train"].labels, sets["val"].labels])
    assert labels.bincount().tolist() == [10] * 3  # 70 % of 14
    assert sets["test"].labels.bincount().tolist() == [4] * 3
    everything = torch.cat([part.images for part in sets.values()])
    assert len(everything.flatten(1).unique(dim=0)) == 42
    test, numbers = sets["test"], range(TRAIN, TRAIN + VAL)
    from_val = [is_image_of(*sample, numbers) for sample in zip(test.images, test.labels.tolist(), strict=True)]
    assert 0 < sum(from_val) < 12


def test_decoded_images_are_kept_until_a_file_changes(folder, monkeypatch):
    first = prepared(folder).datasets["train"].images
    (kept,) = folder.glob("decoded-*.npy")
    decoded = []
    monkeypatch.setattr(
        tiny_imagenet, "_decode", lambda path, of=tiny_imagenet._decode: decoded.append(path) or of(path)
    )
    assert torch.equal(prepared(folder).datasets["train"].images, first)
    prepared(folder, split="70/30")
    assert not decoded
    kept.write_bytes(kept.read_bytes()[:1000])
    assert torch.equal(prepared(folder).datasets["train"].images, first)
    assert len(decoded) == 42
    draw_picture(7, (64, 64)).rotate(90).save(folder / "train" / "n001" / "images" / "n001_0.JPEG", quality=20)
    assert not torch.equal(prepared(folder).datasets["train"].images, first)
    assert len(decoded) == 84


def test_a_write_protected_folder_stays_as_it_is(folder):
    before = sorted(folder.rglob("*"))
    folder.chmod(0o555)
    try:
        prepared(folder)
        assert sorted(folder.rglob("*")) == before
    finally:
        folder.chmod(0o755)


def without_words(folder: Path) -> str:
    (folder / "words.txt").unlink()
    return r"words.txt does not exist: expected Tiny-ImageNet in its original layout; unpack http"


def without_a_name(folder: Path) -> str:
    (folder / "words.txt").write_text("n001\tlion\nn003\tteapot\n")
    return r"words.txt has no name for n002: expected a line for each class"


def without_a_class(folder: Path) -> str:
    (folder / "train" / "n002").rename(folder / "n002")
    return r"train/n002 does not exist"


def without_images(folder: Path) -> str:
    for path in (folder / "train" / "n002" / "images").iterdir():
        path.unlink()
    return r"train/n002 contains no image: expected n002_0.JPEG"


def a_broken_image(folder: Path) -> str:
    path = folder / "train" / "n003" / "images" / "n003_5.JPEG"
    path.write_bytes(path.read_bytes()[:100])
    return r"n003_5.JPEG cannot be read as an image"


def an_image_of_another_size(folder: Path) -> str:
    draw_picture(0, (64, 63)).save(folder / "val" / "images" / "val_4.JPEG")
    return r"val_4.JPEG has 64 x 63 pixels: expected 64 x 64"


def a_missing_validation_image(folder: Path) -> str:
    (folder / "val" / "images" / "val_4.JPEG").unlink()
    return r"val/images/val_4.JPEG does not exist"


def annotations_of_other_classes(folder: Path) -> str:
    (folder / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn999\t0\t0\t1\t1\n")
    return r"val_annotations.txt names no image of the 3 classes in wnids.txt"


def all_for_validation(folder: Path) -> str:
    return r"val_size is 99: expected 0 to 29, as there are 30 training samples"


@pytest.mark.parametrize(
    "spoil",
    [
        without_words,
        without_a_name,
        without_a_class,
        without_images,
        a_broken_image,
        an_image_of_another_size,
        a_missing_validation_image,
        annotations_of_other_classes,
        all_for_validation,
    ],
)
def test_an_unusable_folder_is_one_clear_error(folder, spoil):
    message = spoil(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        prepared(folder, val_size=99 if spoil is all_for_validation else 6)
    assert "\n" not in str(caught.value)
    assert not list(folder.glob(".*"))  # nothing half written


def test_a_missing_folder_is_one_error_with_the_remedies(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tiny-imagenet-200.zip") as caught:
        TinyImageNet(data_dir=str(tmp_path))
    assert re.search(r"does not exist, neither here nor in .*ZOO_DATA", str(caught.value))


def test_an_unknown_split_is_an_error(folder):
    with pytest.raises(ValueError, match="split is '80/20': expected 'official' or '70/30'"):
        prepared(folder, split="80/20")


@pytest.mark.data
def test_the_real_images_have_about_the_stated_mean_and_deviation():
    data = TinyImageNet(val_size=0)
    data.setup("fit")
    train, test = data.datasets["train"], data.datasets["test"]
    assert data.num_classes == len(set(data.classes)) == len(os.listdir(data.folder / "train"))
    assert torch.equal(test.labels.bincount() * len(train), train.labels.bincount() * len(test))
    pixels = train.images[::5].double() / 255
    for own, found in ((data.mean, pixels.mean((0, 2, 3))), (data.std, pixels.std((0, 2, 3)))):
        torch.testing.assert_close(found, torch.tensor(own).double(), atol=0.02, rtol=0)
