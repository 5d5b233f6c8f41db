"""Folders are splits or classes by one careful rule, and what is not read is told."""

from pathlib import Path

import pytest

from datamodules.images.image_folder import ImageFolder
from datamodules.splits import split_named, splits_of
from helpers import draw_picture

CLASSES = ("cat", "dog")


def write(root: Path, *folders: str) -> Path:
    """Three images in each folder, no two alike."""
    for number, folder in enumerate(folders):
        (root / folder).mkdir(parents=True)
        for i in range(3):
            draw_picture(3 * number + i, (24, 24)).save(root / folder / f"{i}.png")
    return root


def within(*splits: str) -> list[str]:
    return [f"{split}/{name}" for split in splits for name in CLASSES]


@pytest.mark.parametrize(
    ("train", "other", "split"),
    [
        ("train2017", "val2017", "val"),
        ("seg_train", "seg_test", "test"),
        ("data_train", "data_val", "val"),
        ("01_train", "02_val", "val"),
        ("train_v1", "test_v1", "test"),
        ("train_split", "test_split", "test"),
        ("train_folder", "test_folder", "test"),
        ("TrainImages", "Test-Images", "test"),
        ("train_val", "test", "test"),
        ("train", "validate", "val"),
        ("train", "vali", "val"),
        ("train", "cross_validation", "val"),
        ("train", "test1", "test"),
        ("train", "holdout", "test"),
        ("train", "te", "test"),
        ("bilder_train/bilder_train", "bilder_test/bilder_test", "test"),
    ],
)
def test_splits_are_known_by_a_word_of_their_names(tmp_path, capfd, train, other, split):
    data = ImageFolder(str(write(tmp_path, *within(train, other))))
    assert data.classes == CLASSES
    folders = {
        part: {str(path.parents[1].relative_to(tmp_path)) for path, _ in data.samples[part]} for part in data.samples
    }
    assert folders == {"train": {train}, split: {other}, "test": {other}}
    assert "not read" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("folders", "left"),
    [
        (within("train", "unseen"), ["unseen"]),
        (within("train", "val", "extra", "my_test"), ["extra", "my_test"]),
        ([*within("seg_train", "seg_test"), "seg_pred"], ["seg_pred"]),
    ],
)
def test_folders_beside_splits_that_are_not_read_are_named(tmp_path, capfd, folders, left):
    data = ImageFolder(str(write(tmp_path, *folders)))
    assert data.classes == CLASSES
    assert f"not read, as these are not names of other splits: {left}\n" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("folders", "named"),
    [
        (
            ["test tube", "train", "valid", "bullet train", "car", "bus", "ship"],
            ["bullet train", "test tube", "train", "valid"],
        ),
        (["train", "car", "bus"], ["train"]),
        (["test", "car"], ["test"]),
        (["test 1", "test 2", "test 3"], ["test 1", "test 2", "test 3"]),
        (["car", "bus"], []),
    ],
)
def test_classes_that_are_called_like_splits_stay_classes(tmp_path, capfd, folders, named):
    data = ImageFolder(str(write(tmp_path, *folders)))
    assert data.classes == tuple(sorted(folders))
    said = capfd.readouterr().err
    assert (f"{named} are taken as classes, not as splits" in said) == ("as classes" in said) == bool(named)


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (
            [f"{name}/{split}" for name in CLASSES for split in ("train", "test")],
            r"cat contains the splits \['test', 'train'\]",
        ),
        (["my_train", "your_test"], r"\['my_train', 'your_test'\], which look like splits but do not belong together"),
        (within("x_train", "x_test", "y_train", "y_test"), "do not belong together"),
        (within("train", "test1", "test2"), "test1 and test2, which both are names for test"),
        (["train", "bus"], r"train contains 0 class folder\(s\) .* or rename the folder if it is a class"),
    ],
)
def test_what_may_be_splits_or_classes_is_refused_in_one_line(tmp_path, folders, message):
    with pytest.raises(ValueError, match=message) as caught:
        ImageFolder(str(write(tmp_path, *folders)))
    assert "\n" not in str(caught.value)


def test_a_split_of_one_kind_is_none(tmp_path):
    assert splits_of(write(tmp_path, "test", "cat")) == {}
    assert [split_named(name) for name in ("retrain", "contest", "test tube", "2017", "")] == [None] * 5
