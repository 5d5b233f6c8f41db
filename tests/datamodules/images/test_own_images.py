"""Pictures of your own: size, channels and length of an epoch follow the data, and no file is read needlessly."""

import random
from collections import Counter
from pathlib import Path

import albumentations as A
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from datamodules import duplicates
from datamodules.duplicates import MIDDLE, same_images
from datamodules.images import image_files
from datamodules.images.image_files import LOOKED_AT
from datamodules.images.image_folder import ImageFolder
from datamodules.passes import Drawn
from helpers import draw_picture, record


def write(folder: Path, modes: tuple[str, ...], size: tuple[int, int] = (40, 30), count: int = 8) -> Path:
    """Two classes of images in the modes in turn, no two alike."""
    suffixes = {"I;16": "tif", "CMYK": "jpg", "L": "jpg"}
    for label, name in enumerate(("Äpfel", "Birnen")):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            mode, image = modes[i % len(modes)], draw_picture(100 * label + i, size)
            if mode == "I;16":
                image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
            image = image if mode == "I;16" else image.convert(mode)
            image.save(folder / name / f"Bild {i}.{suffixes.get(mode, 'png')}")
    return folder


def folder_of(folder: Path, **options) -> ImageFolder:
    data = ImageFolder(str(folder), **({"batch_size": 4, "num_workers": 0} | options))
    data.setup("fit")
    return data


# Size and channels


@pytest.mark.parametrize(
    ("modes", "channels"),
    [
        (("RGB",), 3),
        (("L",), 1),
        (("1", "L", "LA", "I;16"), 1),
        (("L", "L", "L", "RGB"), 3),
        (("RGB", "RGBA", "P", "CMYK"), 3),
    ],
)
def test_channels_are_those_of_the_images_and_batches_have_them(tmp_path, modes, channels):
    data = folder_of(write(tmp_path / "a", modes))
    assert (data.in_channels, len(data.mean), len(data.std)) == (channels,) * 3
    (batch, *_) = record(data).seen["train"]
    assert batch.image.shape[1:] == data.image_shape == (channels, 32, 32)
    assert -3 < batch.image.mean() < 3
    assert folder_of(tmp_path / "a", channels=4 - channels).image_shape == (4 - channels, 32, 32)


@pytest.mark.parametrize(("size", "expected"), [((40, 30), 32), ((70, 500), 72), ((9, 9), 16), ((1000, 250), 96)])
def test_the_size_is_the_median_shorter_side_within_bounds(tmp_path, size, expected):
    write(tmp_path / "a", ("L",), size, count=4)
    draw_picture(7, (50, 50)).save(tmp_path / "a" / "Birnen" / "other.png")
    assert ImageFolder(str(tmp_path / "a")).image_shape[1:] == (expected, expected)
    assert ImageFolder(str(tmp_path / "a"), image_size=20).image_shape[1:] == (20, 20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 2}, "channels is 2: expected 1 for gray or 3 for RGB"),
        ({"image_size": 0}, "image_size is 0: expected 1 or more"),
        ({"epoch_images": 0}, "epoch_images is 0: expected 1 or more"),
        ({"mean": (0.5, 0.5)}, r"mean is \[0.5, 0.5\], but the images have 3 channel"),
        ({"channels": 1, "std": (0.5, 0.5, 0.5)}, "but the images have 1 channel"),
        ({"val_size": 15}, "val_size is 15: of the 8 images of class 'Birnen' that takes 8"),
    ],
)
def test_impossible_arguments_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        ImageFolder(str(write(tmp_path / "a", ("RGB",))), **options)


def test_files_that_are_no_images_are_refused_when_the_size_is_looked_for(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(4):
            (tmp_path / name / f"{i}.png").write_text(f"text {i} of {name}")
    with pytest.raises(ValueError, match=r"\.png and others cannot be read as images"):
        ImageFolder(str(tmp_path))


@pytest.mark.parametrize(("val_size", "expected"), [(None, 2), (4, 4), (0, 0)])
def test_so_many_images_are_held_out_of_all_classes_alike(tmp_path, val_size, expected):
    data = ImageFolder(str(write(tmp_path / "a", ("RGB",))), val_size=val_size)
    assert Counter(label for _, label in data.samples["val"]) == Counter({0: expected // 2, 1: expected // 2})
    assert sum(map(len, data.samples.values())) == 16


# What is read


def test_nothing_is_decoded_before_the_training_but_one_image_to_try_the_pipeline(tmp_path, monkeypatch):
    folder, decoded, opened = write(tmp_path / "a", ("RGB",), count=150), [], []
    load, open_image = ImageFile.ImageFile.load, Image.open
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: decoded.append(1) or load(self))
    monkeypatch.setattr(Image, "open", lambda *args, **options: opened.append(1) or open_image(*args, **options))
    data = ImageFolder(str(folder))
    assert not decoded
    assert len(opened) < 2 * LOOKED_AT
    before = len(opened)
    data.setup("fit")
    assert len(opened) == before + 1


def test_only_files_of_equal_size_are_read_and_of_large_ones_first_a_part(tmp_path, monkeypatch):
    draw, read = random.Random(0), Counter()
    for name, size in (("a", 100), ("b", 101), ("c", 10 * MIDDLE), ("d", 10 * MIDDLE), ("e", 10 * MIDDLE)):
        (tmp_path / name).write_bytes(draw.randbytes(size))
    (tmp_path / "e").write_bytes((tmp_path / "d").read_bytes()[:-1] + b"!")  # differs after the middle
    middle, content = duplicates._middle, duplicates._content
    monkeypatch.setattr(duplicates, "_middle", lambda path, size: read.update([path.name]) or middle(path, size))
    monkeypatch.setattr(duplicates, "_content", lambda path: read.update([path.name * 2]) or content(path))
    assert same_images([*tmp_path.iterdir(), tmp_path / "missing", tmp_path]) == []
    assert read == Counter({"c": 1, "d": 1, "e": 1, "dd": 1, "ee": 1})


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0, 3, MIDDLE, 3 * MIDDLE]), st.integers(0, 2), st.integers(0, 3)), max_size=9)
)
def test_groups_are_those_of_equal_content(tmp_path_factory, files):
    folder, contents = tmp_path_factory.mktemp("files"), {}
    for number, (size, place, value) in enumerate(files):
        content = bytearray(size)
        if size:
            content[(size - 1) * place // 2] = value  # at the begin, in the middle or at the end
        contents[folder / str(number)] = bytes(content)
        (folder / str(number)).write_bytes(content)
    found = {frozenset(group) for group in same_images(contents)}
    equal = {
        content: frozenset(path for path in contents if contents[path] == content) for content in contents.values()
    }
    assert found == {group for group in equal.values() if len(group) > 1}


def copy(folder: Path, number: int, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        draw_picture(number).save(folder / name)


@pytest.mark.parametrize("of_each", [2, 3, 5])
def test_copies_are_always_in_one_split(tmp_path, capfd, of_each):
    for label, name in enumerate(("cat", "dog")):
        for i in range(6):
            copy(tmp_path, 10 * label + i, *(f"{name}/{i} {number}.png" for number in range(of_each)))
    copy(tmp_path, 0, "dog/is a cat.png")
    data = ImageFolder(str(tmp_path), image_size=16)
    assert "images that occur more than once: 12" in (said := capfd.readouterr().err)
    assert "of these in different classes: 1" in said
    split_of: dict[bytes, set[str]] = {}
    for split, samples in data.samples.items():
        for path, _ in samples:
            split_of.setdefault(path.read_bytes(), set()).add(split)
    assert [len(splits) for splits in split_of.values()] == [1] * 12
    assert sum(map(len, data.samples.values())) == 12 * of_each + 1
    for samples in data.samples.values():
        assert {label for _, label in samples} == {0, 1}


def test_a_class_of_nothing_but_copies_is_refused(tmp_path):
    for i in range(6):
        copy(tmp_path, i, f"cat/{i}.png")
        copy(tmp_path, 10 + i % 2, f"dog/{i}.png")
    with pytest.raises(ValueError, match=r"class 'dog' has 2 image\(s\), not counting copies: expected 3 or more"):
        ImageFolder(str(tmp_path), image_size=16)


def test_large_jpegs_are_decoded_smaller_but_not_for_transforms_of_ones_own(tmp_path, monkeypatch):
    folder, sizes = write(tmp_path / "a", ("L",), (800, 600), count=3), []
    read_image = image_files.read_image
    monkeypatch.setattr(
        image_files, "read_image", lambda *args, **options: sizes.append((x := read_image(*args, **options)).size) or x
    )
    folder_of(folder, image_size=32)
    folder_of(folder, image_size=32, transform=[A.CenterCrop(32, 32)])
    assert sizes == [(100, 75), (800, 600)]


def test_shrunken_images_keep_the_pixels_between(tmp_path):
    """Black and white pixels in turn become gray, instead of black or white."""
    pattern = np.indices((256, 256)).sum(0) % 2 * 255
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(4):
            pattern[0, 0] = 10 * i + len(list(tmp_path.rglob("*.png")))  # no copies
            Image.fromarray(pattern.astype(np.uint8)).save(tmp_path / name / f"{name}{i}.png")
    data = folder_of(tmp_path, image_size=32, augment=[])
    for split in ("train", "val"):
        image = data.datasets[split][0].image.float()
        assert 90 < image.mean() < 165
        assert image.std() < 30


# Epochs of a given length


def test_an_epoch_has_so_many_images_and_all_are_used_equally_often(tmp_path):
    data = folder_of(write(tmp_path / "a", ("RGB",)), epoch_images=15)
    assert isinstance(data.datasets["train"], Drawn)
    order = []
    for epoch in range(4):
        data.datasets["train"].set_epoch(epoch)
        order += data.datasets["train"].drawn[:, 1].tolist()
    assert len(order) == 60
    assert Counter(Counter(order).values()) == Counter({5: 12})
    assert order[:12] != order[12:24]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_image_that_is_in_an_epoch_twice_is_augmented_in_two_ways_whoever_reads_it(tmp_path, num_workers):
    folder = write(tmp_path / "a", ("RGB",))
    data = folder_of(folder, epoch_images=24, num_workers=num_workers)
    loader = data.train_dataloader()
    loader.set_epoch(1)
    images = torch.cat([batch.image for batch in loader])
    assert len(images) == 24
    assert len(images.flatten(1).unique(dim=0)) == 24
    passes = folder_of(folder)  # the same images, pass by pass
    expected = []
    for epoch in (2, 3):
        passes.datasets["train"].set_epoch(epoch)
        expected += [passes.datasets["train"][i].image for i in range(12)]
    found = {image.numpy().tobytes() for image in images}
    assert found == {image.numpy().tobytes() for image in expected}


def test_a_resumed_epoch_has_the_rest_of_its_images(tmp_path):
    data = folder_of(write(tmp_path / "a", ("RGB",)), epoch_images=20)
    loader = data.train_dataloader()
    loader.set_epoch(3)
    whole = [batch.image for batch in loader]
    again = data._loader("train")
    again.load_state_dict({"epoch": 3, "position": 2})
    rest = [batch.image for batch in again]
    assert len(whole) == 5
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], rest, strict=True))


def test_workers_say_nothing_about_what_images_people_have(tmp_path, capfd):
    folder = write(tmp_path / "a", ("RGB", "RGBA", "P", "L", "I;16", "1"), size=(32, 32), count=12)
    clear = draw_picture(1, (32, 32)).convert("P")
    clear.info["transparency"] = bytes(range(256))
    clear.save(folder / "Birnen" / "clear.png", transparency=bytes(range(256)))
    exif = Image.Exif()
    exif[0x9003] = "2020:01:01 00:00:00"
    broken = exif.tobytes()[:-8]
    draw_picture(2, (32, 32)).save(folder / "Birnen" / "exif.jpg", exif=broken)
    data = folder_of(folder, num_workers=2)
    assert "images of 2 classes (Birnen, Äpfel): " in (said := capfd.readouterr().err)
    assert "32 x 32 pixels, to which other shapes are stretched" in said
    for split in ("train", "val", "test"):
        assert len(list(data._loader(split))) > 0
    assert capfd.readouterr().err == ""
