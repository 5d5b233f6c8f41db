"""What a run has logged is read as it was meant, whatever was evaluated after it."""

import math

import pytest

from zoo.report.metrics import read_metrics


@pytest.fixture
def read(kit, tmp_path):
    def from_rows(rows):
        kit.write_metrics(tmp_path / "metrics.csv", rows)
        return read_metrics(tmp_path / "metrics.csv")

    return from_rows


def test_epochs_are_counted_from_one(read, kit):
    found = read(kit.rows)
    assert found.history["val/acc"] == {1: 0.5, 2: 0.8125, 3: 0.75}
    assert found.history["train/loss"] == {1: 1.5, 2: 0.71875, 3: 0.3125}
    assert (found.epochs, found.results) == (3, {})
    assert found.last("val/acc") == 0.75
    assert found.last("test/acc") is None


@pytest.mark.parametrize("step", [0, 30], ids=["in a process of its own", "after the training in the same process"])
def test_a_test_after_the_training_is_its_result_and_no_epoch(read, kit, step):
    found = read([*kit.rows, {"epoch": 3 if step else 0, "step": step, "test/acc": 0.71}])
    assert found.results == {"test/acc": 0.71}
    assert found.history.keys() == {"train/acc", "train/loss", "val/acc", "val/loss"}
    assert found.last("test/acc") == 0.71


def test_a_validation_after_the_training_changes_no_curve(read, kit):
    found = read([*kit.rows, {"epoch": 0, "step": 0, "val/acc": 0.1, "val/loss": 9.0}])
    assert found.history["val/acc"] == {1: 0.5, 2: 0.8125, 3: 0.75}
    assert found.last("val/acc") == 0.75


def test_a_training_that_went_on_after_a_test_is_one_curve(read, kit):
    test = {"epoch": 0, "step": 0, "test/acc": 0.6}
    found = read([*kit.rows[:4], test, *kit.rows[4:]])
    assert found.history["val/acc"] == {1: 0.5, 2: 0.8125, 3: 0.75}
    assert found.last("test/acc") == 0.6


def test_a_test_that_is_watched_in_each_epoch_is_a_curve(read):
    rows = [{"epoch": i, "step": 10 * i + 9, "val/acc": 0.5, "test/acc": 0.25 * (i + 1)} for i in range(3)]
    found = read(rows)
    assert found.history["test/acc"] == {1: 0.25, 2: 0.5, 3: 0.75}
    assert (found.results, found.last("test/acc")) == ({}, 0.75)


def test_several_values_in_an_epoch_are_counted_by_steps(read):
    rows = [{"epoch": i // 3, "step": 5 * i, "lr-SGD": 0.5**i} for i in range(6)]
    rows += [{"epoch": 1, "step": 26, "train/loss_step": 2.0}, {"epoch": 1, "step": 26, "train/loss_epoch": 3.0}]
    found = read(rows)
    assert found.steps["lr-SGD"] == {5 * i: 0.5**i for i in range(6)}
    assert "lr-SGD" not in found.history
    assert found.history["train/loss"] == {2: 3.0}, "the mean of an epoch has the metric's own name"


def test_values_that_are_no_numbers_stay(read):
    found = read([{"epoch": 0, "step": 1, "train/loss": "nan", "val/loss": "inf"}])
    assert math.isnan(found.last("train/loss"))
    assert found.last("val/loss") == math.inf


def test_a_file_that_is_no_table_of_metrics_is_one_line(tmp_path):
    assert read_metrics(tmp_path / "absent.csv").names == set()
    for content in (b"epoch,step,val/acc\n0,1,high\n", b"\xff\xfe\x00\n\x00", b"step,val/acc\nx,1\n"):
        (tmp_path / "metrics.csv").write_bytes(content)
        with pytest.raises(ValueError, match=r"metrics\.csv is no table of metrics .* expected"):
            read_metrics(tmp_path / "metrics.csv")
    (tmp_path / "metrics.csv").write_text("")
    assert read_metrics(tmp_path / "metrics.csv").names == set()
