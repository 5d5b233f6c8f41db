"""Datamodules of images keep their contract; unusual files are read, missing and damaged ones are one clear error."""

import gzip
import multiprocessing
import os
import shutil
import urllib.error
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image, PngImagePlugin

from datamodules import files
from datamodules.augment.images import ImageAugmentation
from datamodules.image import ImageData
from datamodules.images.cifar10 import CIFAR10
from datamodules.images.digits import Digits
from datamodules.images.fashion_mnist import FashionMNIST
from datamodules.images.image_folder import ImageFolder
from datamodules.images.mnist import MNIST
from datamodules.io import read_image
from helpers import draw_picture, fingerprint_of_global_randomness, quiet_trainer, record

VAL = 20
SIZES = {MNIST: (100, VAL, 40), FashionMNIST: (100, VAL, 40), CIFAR10: (180, VAL, 40), Digits: (1417, VAL, 360)}
DOWNLOADED = (MNIST, FashionMNIST, CIFAR10)


def prepared(kind: type[ImageData], folder: Path, **options) -> ImageData:
    where = {} if kind is Digits else {"data_dir": str(folder)}
    data = kind(**(where | {"val_size": VAL} | options))
    data.prepare_data()
    data.setup("fit")
    return data


def sizes(data: ImageData) -> tuple[int, ...]:
    return tuple(len(data.datasets[split]) for split in ("train", "val", "test"))


class Invert(ImageAugmentation):
    def image(self, x, generator):
        return 1 - x


@pytest.mark.parametrize("kind", SIZES, ids=lambda kind: kind.__name__)
class TestContract:
    def test_it_knows_its_sizes_shape_classes_and_statistics(self, kind, fake_data):
        data = prepared(kind, fake_data)
        assert sizes(data) == SIZES[kind]
        assert data.num_classes == len(data.classes) == len(set(data.classes)) == 10
        assert len(data.mean) == len(data.std) == data.image_shape[0]
        image, label = data.datasets["train"][0]
        assert (image.shape, image.dtype, label.dtype) == (data.image_shape, torch.uint8, torch.int64)
        assert {int(label) for split in data.datasets.values() for label in split.labels} == set(range(10))

    def test_validation_is_a_part_of_train_and_the_same_for_every_seed(self, kind, fake_data):
        data, other, undivided = (prepared(kind, fake_data, **o) for o in ({}, {"seed": 7}, {"val_size": 0}))
        assert torch.equal(data.datasets["val"].images, other.datasets["val"].images)
        parts = torch.cat([data.datasets["train"].images, data.datasets["val"].images]).flatten(1)
        everything = undivided.datasets["train"].images.flatten(1)
        assert torch.equal(parts.unique(dim=0), everything.unique(dim=0))
        assert len(parts) == len(everything)
        assert torch.equal(data.datasets["test"].images, undivided.datasets["test"].images)
        assert data.val_dataloader().keys() == {"val"}
        assert undivided.val_dataloader() == {}
        assert record(undivided, limit_train_batches=1).seen["val"] == []

    @pytest.mark.parametrize("val_size", [-1, 10_000])
    def test_an_impossible_validation_size_is_an_error(self, kind, fake_data, val_size):
        with pytest.raises(ValueError, match=f"val_size is {val_size}: expected 0 to"):
            prepared(kind, fake_data, val_size=val_size)

    def test_denormalize_inverts_normalize(self, kind, fake_data):
        data = kind()
        x = torch.rand(3, *data.image_shape)
        torch.testing.assert_close(data.denormalize(data.normalize(x)), x)
        assert data.denormalize(torch.full(data.image_shape, 99.0)).max() == 1

    def test_batches_are_normalized_and_only_training_is_augmented(self, kind, fake_data):
        data = prepared(kind, fake_data, augment=[Invert()], watch_test=True, batch_size=8, eval_batch_size=15)
        seen = record(data, limit_train_batches=3, num_sanity_val_steps=0).seen
        assert [len(seen[split]) for split in ("train", "val", "test")] == [3, 2, -(-SIZES[kind][2] // 15)]
        for split, batches in seen.items():
            for batch in batches:
                assert (batch.image.dtype, batch.image.shape[1:]) == (torch.float32, data.image_shape)
                pixels = data.datasets[split].images.flatten(1)
                for image, label in zip(data.denormalize(batch.image) * 255, batch.label, strict=True):
                    image = 255 - image if split == "train" else image
                    same = (pixels == image.round().to(torch.uint8).flatten()).all(1)
                    assert (data.datasets[split].labels[same] == label).any()

    def test_watch_test_adds_the_test_set_to_validation(self, kind, fake_data):
        loaders = prepared(kind, fake_data, watch_test=True).val_dataloader()
        assert list(loaders) == ["val", "test"]
        assert len(loaders["test"].dataset) == SIZES[kind][2]


def test_normalized_training_images_have_mean_0_and_standard_deviation_1():
    data = Digits(val_size=0)
    data.setup("fit")
    x = data.normalize(data.datasets["train"].images / 255)
    assert abs(x.mean()) < 1e-3
    assert abs(x.std() - 1) < 1e-3


@pytest.mark.parametrize("name", ["batch_size", "eval_batch_size"])
def test_an_impossible_batch_size_is_an_error(name):
    with pytest.raises(ValueError, match=f"{name} is 0: expected 1 or more"):
        Digits(**{name: 0})


@pytest.mark.parametrize(("precision", "dtype"), [("64-true", torch.float64), ("bf16-true", torch.bfloat16)])
def test_batches_come_in_the_precision_of_the_trainer(precision, dtype):
    assert record(Digits(), precision=precision, limit_train_batches=1).seen["train"][0].image.dtype == dtype


def test_data_dir_is_the_given_one_else_zoo_data_else_data(monkeypatch):
    assert MNIST().data_dir == Path("data")
    monkeypatch.setenv("ZOO_DATA", "/there")
    assert MNIST().data_dir == Path("/there")
    assert MNIST(data_dir="/here").data_dir == Path("/here")


# Files


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network, no apt, no system folder."""

    def refuse(*args, **options):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torchvision.datasets.utils, "_urlretrieve", refuse)
    monkeypatch.setattr(torchvision.datasets.utils.urllib.request, "urlopen", refuse)
    monkeypatch.setattr(files.shutil, "which", lambda name: None)
    monkeypatch.setattr(files, "SYSTEM_FOLDER", tmp_path / "system")


def everything_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", DOWNLOADED, ids=lambda kind: kind.__name__)
class TestFiles:
    def test_missing_ones_are_one_error_with_file_folder_sources_and_remedies(self, kind, tmp_path, offline):
        folder = tmp_path / "empty"
        with pytest.raises(FileNotFoundError) as caught:
            kind(data_dir=str(folder)).prepare_data()
        message = str(caught.value)
        sources = ["torchvision's download"]
        if kind is FashionMNIST:
            sources += [str(tmp_path / "system"), "Debian's package (no apt-get here)"]
        for part in (kind.name, next(iter(kind.checksums)), str(folder), "ZOO_DATA", "network", "by hand", *sources):
            assert part in message
        assert "\n" not in message
        assert everything_below(tmp_path) == {}
        assert list(folder.rglob("*")) == []

    @pytest.mark.parametrize("damage", [lambda raw: raw[:-1], lambda raw: b"", lambda raw: raw[:-1] + b"?"])
    def test_a_damaged_one_is_named_and_stays_as_it_is(self, kind, fake_data, offline, damage):
        victim = fake_data / list(kind.checksums)[1]
        victim.write_bytes(damage(victim.read_bytes()))
        before = everything_below(fake_data)
        with pytest.raises(ValueError, match=r"is damaged: expected md5 \w+, found \w+ .* delete it") as caught:
            kind(data_dir=str(fake_data)).prepare_data()
        assert str(victim) in str(caught.value)
        assert everything_below(fake_data) == before

    def test_existing_ones_are_not_fetched(self, kind, fake_data, offline):
        before = everything_below(fake_data)
        prepared(kind, fake_data)
        assert everything_below(fake_data) == before

    @pytest.mark.parametrize("error", [OSError("line cut"), KeyboardInterrupt(), RuntimeError("cut\nagain")], ids=repr)
    def test_an_interrupted_source_leaves_no_files(self, kind, tmp_path, error):
        folder = tmp_path / "data"

        def halfway(target: Path) -> None:
            (target / "half").write_text("half")
            raise error

        with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else FileNotFoundError) as caught:
            files.ensure_files(kind.name, folder, kind.checksums, {"half a source": halfway})
        assert list(folder.iterdir()) == []
        assert "\n" not in str(caught.value)

    def test_a_source_that_works_after_others_failed_puts_the_files_in_place(self, kind, fake_data, tmp_path):
        folder = tmp_path / "new"
        wrong = dict.fromkeys(kind.checksums, b"wrong")

        def write(target: Path, contents: dict) -> None:
            for name, content in contents.items():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                (target / name).write_bytes(content)

        right = {name: (fake_data / name).read_bytes() for name in kind.checksums}
        sources = {
            "nothing": lambda target: None,
            "wrong": lambda target: write(target, wrong),
            "right": lambda target: write(target, right | {"rubbish": b""}),
            "never": lambda target: pytest.fail("a source too many"),
        }
        files.ensure_files(kind.name, folder, kind.checksums, sources)
        assert everything_below(folder) == right
        assert sizes(prepared(kind, folder)) == SIZES[kind]


def test_fashion_mnist_is_found_in_the_system_folder(fake_data, tmp_path, offline):
    system = tmp_path / "system" / "fashion-mnist"
    system.mkdir(parents=True)
    for name in FashionMNIST.checksums:
        with gzip.open(system / f"{Path(name).name}.gz", "wb") as file:
            file.write((fake_data / name).read_bytes())
    shutil.rmtree(fake_data / "FashionMNIST")
    assert sizes(prepared(FashionMNIST, fake_data)) == SIZES[FashionMNIST]


# The user's own images


def folder_of(pictures: Path, **options) -> ImageFolder:
    data = ImageFolder(str(pictures), **({"image_size": 16, "batch_size": 4, "num_workers": 0} | options))
    data.setup("fit")
    return data


def layout(pictures: Path, splits: tuple[str, ...]) -> Path:
    """Images of their own under train/ and so on: the given ones, turned."""
    for turns, split in enumerate(splits):
        shutil.copytree(pictures, pictures.parent / "split" / split)
        for path in (pictures.parent / "split" / split).rglob("*.*"):
            Image.open(path).rotate(90 * turns).save(path)
    return pictures.parent / "split"


def names(data: ImageFolder, split: str) -> list[str]:
    return [str(path) for path in data.datasets[split].paths]


def test_images_in_class_folders_are_split_class_by_class_and_always_in_the_same_way(pictures):
    data, again = folder_of(pictures), folder_of(pictures, seed=5)
    assert data.classes == ("bird", "cat")
    count = {split: Counter(data.datasets[split].labels) for split in data.datasets}
    assert count == {"train": {0: 6, 1: 8}, "val": {0: 1, 1: 2}, "test": {0: 1, 1: 2}}
    assert len({name for split in data.datasets for name in names(data, split)}) == 20
    assert all(names(data, split) == names(again, split) for split in data.datasets)
    for split in data.datasets:
        assert [data.classes[label] for label in data.datasets[split].labels] == [
            path.parent.name for path in data.datasets[split].paths
        ]


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (("train", "val", "test"), (20, 20, 20)),
        (("train", "val"), (20, 20, 20)),
        (("train",), (14, 3, 3)),
    ],
)
def test_images_divided_by_hand_stay_so(pictures, splits, expected):
    data = folder_of(layout(pictures, splits))
    assert sizes(data) == expected
    assert all(f"split/{splits[0]}/" in name for name in names(data, "train"))
    assert all(f"split/{splits[-1]}/" in name for name in names(data, "test"))


def only_one_class(folder: Path) -> str:
    shutil.rmtree(folder / "cat")
    return rf"{folder} contains 1 class folder\(s\) \['bird'\]: expected two or more"


def no_folder(folder: Path) -> str:
    shutil.rmtree(folder)
    return f"{folder} does not exist: expected a folder"


def a_class_without_images(folder: Path) -> str:
    (folder / "dog").mkdir()
    (folder / "dog" / "notes.txt").write_text("not an image")
    return f"{folder / 'dog'} contains no image"


def too_few_to_divide(folder: Path) -> str:
    (folder / "dog").mkdir()
    draw_picture(0).save(folder / "dog" / "a.png")
    return r"class 'dog' has 1 image\(s\): expected 3 or more"


def splits_with_different_classes(folder: Path) -> str:
    for split, classes in (("train", ("bird", "cat")), ("val", ("bird", "dog"))):
        for name in classes:
            (folder / split / name).mkdir(parents=True)
            draw_picture(0).save(folder / split / name / "a.png")
    return f"{folder / 'val'} and {folder / 'train'} differ in the class 'cat'"


@pytest.mark.parametrize(
    "spoil",
    [only_one_class, no_folder, a_class_without_images, too_few_to_divide, splits_with_different_classes],
    ids=lambda spoil: spoil.__name__,
)
def test_an_unusable_folder_is_one_clear_error(pictures, spoil):
    message = spoil(pictures)
    with pytest.raises(FileNotFoundError if spoil is no_folder else ValueError, match=message) as caught:
        folder_of(pictures)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("keep", [0, 40, 0.5], ids=["empty", "header", "half"])
def test_a_file_that_is_not_an_image_is_named_in_one_line_by_any_process(pictures, num_workers, keep):
    victim = pictures / "bird" / "00.jpg"
    raw = victim.read_bytes()
    victim.write_bytes(raw[: int(keep * len(raw)) if isinstance(keep, float) else keep])
    data = folder_of(pictures, num_workers=num_workers)
    with pytest.raises(ValueError, match=f"^{victim} cannot be read as an image") as caught:
        [list(data._loader(split)) for split in data.datasets]
    assert "\n" not in str(caught.value)
    assert multiprocessing.active_children() == []


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path / 'none.png'} does not exist"):
        read_image(tmp_path / "none.png")


COLOR = (200, 100, 50)


def gray_levels(maximum: int, dtype: type) -> Image.Image:
    return Image.fromarray(np.linspace(0, maximum, 40).astype(dtype)[None].repeat(30, 0))


def with_transparent_half(image: Image.Image) -> Image.Image:
    image.paste((0, 0, 0, 0), (20, 0, 40, 30))
    return image


def palette_with_transparent_half() -> Image.Image:
    image = Image.new("P", (40, 30), 0)
    image.putpalette([*COLOR, 0, 0, 0])
    image.paste(1, (20, 0, 40, 30))
    image.info["transparency"] = 1
    return image


@pytest.mark.parametrize(
    ("make", "left", "right"),
    [
        (lambda: Image.new("RGB", (40, 30), COLOR), COLOR, COLOR),
        (lambda: Image.new("RGB", (40, 30), COLOR).convert("P"), COLOR, COLOR),
        (lambda: with_transparent_half(Image.new("RGBA", (40, 30), COLOR)), COLOR, (255,) * 3),
        (lambda: Image.new("LA", (40, 30), (90, 0)), (255,) * 3, (255,) * 3),
        (palette_with_transparent_half, COLOR, (255,) * 3),
        (lambda: gray_levels(255, np.uint8), (0,) * 3, (255,) * 3),
        (lambda: gray_levels(65535, np.uint16), (0,) * 3, (255,) * 3),
        (lambda: Image.new("1", (40, 30), 1), (255,) * 3, (255,) * 3),
    ],
    ids=["color", "palette", "transparent", "gray transparent", "palette transparent", "gray", "16 bits", "1 bit"],
)
def test_any_kind_of_image_is_read_as_a_viewer_shows_it(tmp_path, make, left, right):
    make().save(tmp_path / "a.png")
    pixels = np.asarray(read_image(tmp_path / "a.png"))
    assert (pixels.shape, pixels.dtype) == ((30, 40, 3), np.uint8)
    np.testing.assert_allclose(pixels[:, 0], np.broadcast_to(left, (30, 3)), atol=26)  # web palette: steps of 51
    np.testing.assert_allclose(pixels[:, -1], np.broadcast_to(right, (30, 3)), atol=26)
    assert read_image(tmp_path / "a.png", "L").mode == "L"


def test_16_bits_keep_their_levels(tmp_path):
    for maximum, dtype in ((255, np.uint8), (65535, np.uint16)):
        gray_levels(maximum, dtype).save(tmp_path / f"{maximum}.png")
    eight, sixteen = (np.asarray(read_image(tmp_path / f"{maximum}.png"), dtype=int) for maximum in (255, 65535))
    assert abs(eight - sixteen).max() <= 1


def test_an_image_rotated_by_its_camera_is_read_upright(tmp_path):
    upright, exif = draw_picture(3), Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees clockwise"
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "a.png")), np.asarray(upright))


def epochs_of(data: ImageFolder, count: int = 1) -> list[torch.Tensor]:
    """The augmented training images of each epoch in the order of their labels and files."""
    loader, found = data.train_dataloader(), []
    for epoch in range(count):
        loader.set_epoch(epoch)
        order = torch.cat(loader.batches())
        found.append(torch.cat([batch.image for batch in loader])[order.argsort()])
    return found


@pytest.fixture
def equal_images(tmp_path):
    """Equal pixels in files that are not copies of each other."""
    for name in ("bird", "cat"):
        (tmp_path / "equal" / name).mkdir(parents=True)
        for i in range(8):
            remark = PngImagePlugin.PngInfo()
            remark.add_text("number", f"{i} of {name}")
            draw_picture(0).save(tmp_path / "equal" / name / f"{i}.png", pnginfo=remark)
    return tmp_path / "equal"


def test_each_sample_and_epoch_has_its_own_augmentation_whatever_the_number_of_workers(equal_images):
    before = fingerprint_of_global_randomness()
    alone = torch.cat(epochs_of(folder_of(equal_images), 2))
    shared = torch.cat(epochs_of(folder_of(equal_images, num_workers=2), 2))
    assert len(alone) == 24
    assert len(alone.flatten(1).unique(dim=0)) == 24
    assert torch.equal(alone, shared)
    assert not torch.equal(alone, torch.cat(epochs_of(folder_of(equal_images, seed=1), 2)))
    assert fingerprint_of_global_randomness() == before


def test_evaluation_images_are_only_resized(equal_images):
    data = folder_of(equal_images)
    images = torch.cat([batch.image for split in ("val", "test") for batch in data._loader(split)])
    assert len(images) == 4
    assert len(images.flatten(1).unique(dim=0)) == 1
    small = np.asarray(draw_picture(0).resize((16, 16), Image.Resampling.BILINEAR)) / 255
    assert abs(images[0].permute(1, 2, 0) / 255 - torch.from_numpy(small)).mean() < 0.06


def test_own_images_train_validate_and_test_without_a_warning_of_albumentations(pictures):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = ImageFolder(str(pictures), image_size=16, batch_size=4, num_workers=0, watch_test=True)
        seen = record(data, max_epochs=2).seen
        quiet_trainer().test(record(data, limit_train_batches=1), datamodule=data, verbose=False)
    assert [len(seen[split]) for split in ("train", "val", "test")] == [6, 2, 2]
    assert all(batch.image.shape[1:] == (3, 16, 16) and batch.image.dtype == torch.float32 for batch in seen["train"])
    warned = [str(w.message) for w in caught if "albu" in w.filename or "albu" in str(w.message).lower()]
    assert warned == []


@pytest.fixture
def stand_ins(tmp_path, monkeypatch) -> Callable[[dict[str, str]], None]:
    """Replaces commands by scripts: name -> script."""

    def write(commands: dict[str, str]) -> None:
        (tmp_path / "bin").mkdir()
        for name, script in commands.items():
            (tmp_path / "bin" / name).write_text(f"#!/bin/sh\nset -e\n{script}\n")
            (tmp_path / "bin" / name).chmod(0o755)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return write


def test_debians_package_is_fetched_and_unpacked_into_a_relative_folder(stand_ins):
    """With replacements of apt-get and dpkg that are as strict about their paths as the real ones."""
    stand_ins(
        {
            "apt-get": '[ "$1 $2" = "download dataset-x" ] && echo packed > dataset-x_1_all.deb',
            "dpkg": '[ "$1" = -x ] && [ -f "$2" ] && mkdir -p "$3/usr/share/datasets/x" && '
            'printf abc | gzip > "$3/usr/share/datasets/x/file.gz"',
        }
    )
    Path("data").mkdir()
    files.debian_package("dataset-x", Path("/usr/share/datasets/x"), "X/raw")(Path("data"))
    assert Path("data/X/raw/file").read_text() == "abc"


def test_the_message_of_a_failed_command_is_its_error_and_not_a_warning_before_it(stand_ins):
    stand_ins({"apt-get": "echo 'W: not sandboxed' >&2; echo 'E: no network' >&2; exit 100", "dpkg": ""})
    source = files.debian_package("dataset-x", Path("/usr/share/datasets/x"), "X/raw")
    with pytest.raises(FileNotFoundError, match=r"no source worked: Debian's package \(E: no network\)\."):
        files.ensure_files("X", Path("data"), {"X/raw/file": "0"}, {"Debian's package": source})
