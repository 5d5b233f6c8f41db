"""A data set on the Trainer's device gives the same batches, and labels are checked once, before training."""

import pytest
import torch

from datamodules.augment.images import Crop, Flip
from datamodules.augment.mix import CutMix
from datamodules.boxes.shapes import Shapes
from datamodules.image import ImageData
from datamodules.images.image_folder import ImageFolder
from datamodules.loader import InMemory, Loader
from helpers import Synthetic, quiet_trainer, record

META = torch.device("meta")  # a device that is not the host, on every machine


def test_batches_and_their_order_are_the_same():
    augment = [Crop(1), Flip(), CutMix(10)]
    runs = [record(Synthetic(augment=augment, batch_size=8, seed=3, on_device=on)).seen for on in (False, True)]
    for split in ("train", "val"):
        for one, other in zip(runs[0][split], runs[1][split], strict=True):
            assert torch.equal(one.image, other.image)
            assert torch.equal(one.label, other.label)


@pytest.mark.parametrize("shuffle", [False, True])
def test_the_indices_of_an_epoch_are_moved_once_and_batches_are_made_on_the_device(shuffle, monkeypatch):
    data = InMemory(torch.zeros(50, 1, 2, 2, dtype=torch.uint8), torch.arange(50))
    assert data.to(torch.device("cpu")) is data
    loader = Loader(data.to(META), 8, shuffle=shuffle, seed=1)
    assert loader.dataset.device == META
    batches = iter(loader)
    first = next(batches)
    for kind in (torch.Tensor, InMemory):
        monkeypatch.setattr(kind, "to", lambda *_, **__: pytest.fail("moved in a step"))
    rest = list(batches)
    assert {batch.image.device for batch in (first, *rest)} == {META}
    assert {batch.label.device for batch in (first, *rest)} == {META}
    assert len(rest) + 1 == len(loader)


def test_the_data_sets_are_moved_to_the_trainers_device_in_setup(monkeypatch):
    data = Synthetic(on_device=True)
    data.trainer = quiet_trainer()
    monkeypatch.setattr(type(data.trainer.strategy), "root_device", META)
    data.setup("fit")
    assert {data.datasets[split].device for split in ("train", "val", "test")} == {META}
    assert data.datasets["train"].images.shape == (40, 1, 8, 8)


def test_without_a_trainer_they_stay_on_the_host():
    data = Synthetic(on_device=True)
    data.setup("fit")
    assert data.datasets["train"].device.type == "cpu"


def test_files_and_boxes_cannot_be_moved(pictures):
    for data, kind in (
        (ImageFolder(str(pictures), image_size=16, on_device=True), "ImageFiles"),
        (Shapes(size=16, train_size=2, val_size=0, test_size=0, on_device=True), "BoxedInMemory"),
    ):
        with pytest.raises(
            ValueError, match=f"on_device is true, but the data of .* are {kind}: .* leave out"
        ) as caught:
            data.setup("fit")
        assert "\n" not in str(caught.value)


class Given(ImageData):
    """Three images with given labels."""

    classes, mean, std, image_shape = ("a", "b"), (0.5,), (0.5,), (1, 2, 2)

    def __init__(self, label: torch.Tensor) -> None:
        super().__init__(val_size=0)
        self.label = label

    def make_datasets(self) -> dict:
        return {"train": InMemory(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), self.label)}


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (torch.tensor([0, 1, 2]), "train of Given has labels of 0 to 2, but there are 2 classes: expected 0 to 1"),
        (torch.tensor([0, -1, 1]), "train of Given has labels of -1 to 1, but there are 2 classes"),
        (torch.rand(3, 5), "train of Given has labels of 5 shares, but there are 2 classes"),
    ],
)
def test_labels_that_are_not_those_of_the_classes_are_one_error_in_setup(label, message):
    with pytest.raises(ValueError, match=message) as caught:
        Given(label).setup("fit")
    assert "\n" not in str(caught.value)


def test_labels_of_the_classes_are_accepted_as_indices_and_as_shares():
    for label in (torch.tensor([0, 1, 1]), torch.rand(3, 2)):
        data = Given(label)
        data.setup("fit")
        assert torch.equal(data.samples_of("train", [2, 0]).label, label[[2, 0]])
