"""The data sets under ZOO_DATA have the published checksums and statistics, and a short training on them learns."""

import pytest
import torch

from datamodules.images.cifar10 import CIFAR10
from datamodules.images.fashion_mnist import FashionMNIST
from datamodules.images.mnist import MNIST
from zoo.command.checkpoints import load_module
from zoo.command.main import main

pytestmark = pytest.mark.data


@pytest.mark.parametrize("dataset", [MNIST, FashionMNIST, CIFAR10])
def test_the_data_have_the_checksums_and_statistics_that_are_stated(dataset):
    data = dataset(val_size=0)
    data.prepare_data()
    data.setup("fit")
    train, test = data.datasets["train"], data.datasets["test"]
    assert (len(train), len(test)) == (50_000 if dataset is CIFAR10 else 60_000, 10_000)
    assert test.labels.bincount().tolist() == [1000] * 10 or dataset is MNIST
    assert tuple(train.images.shape[1:]) == data.image_shape
    pixels = train.images.double() / 255
    assert pixels.mean((0, 2, 3)).tolist() == pytest.approx(data.mean, abs=1e-4)
    assert pixels.std((0, 2, 3)).tolist() == pytest.approx(data.std, abs=1e-4)


def test_a_short_training_on_fashion_mnist_learns(tmp_path, capfd):
    options = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "80", "--trainer.callbacks", "null"]
    assert main(["fit", "fashion_mnist/flagship", *options, "--trainer.default_root_dir", str(tmp_path)]) == 0
    model, metadata = load_module(tmp_path / "checkpoints" / "last.ckpt")
    data = FashionMNIST()
    data.setup("test")
    images, labels = data.datasets["test"].images[:2000], data.datasets["test"].labels[:2000]
    with torch.inference_mode():
        accuracy = (model(data.normalize(images / 255)).argmax(1) == labels).float().mean()
    assert accuracy > 0.75
    assert metadata["classes"][9] == "ankle boot"
