"""Each image is mirrored in every second epoch, about half of them first, the same after a resume and on a device."""

import torch

from datamodules.augment.alternating_flip import AlternatingFlip
from datamodules.images.mnist import MNIST
from datamodules.loader import InMemory, Loader

IMAGES = torch.arange(40 * 3 * 2 * 4, dtype=torch.int64).reshape(40, 3, 2, 4).remainder(251).to(torch.uint8)


def mirrored(dataset: AlternatingFlip, epoch: int) -> torch.Tensor:
    """Which images are mirrored in an epoch; every image is either as it was or its mirror image."""
    dataset.set_epoch(epoch)
    found = dataset.__getitems__(torch.arange(40))
    assert torch.equal(found.label, torch.arange(40))
    same, turned = ((found.image == other).flatten(1).all(1) for other in (IMAGES, IMAGES.flip(-1)))
    assert torch.all(same ^ turned)
    return turned


def test_images_take_turns():
    dataset = AlternatingFlip(InMemory(IMAGES, torch.arange(40)), seed=1)
    epochs = [mirrored(dataset, epoch) for epoch in range(4)]
    assert 8 < epochs[0].sum() < 32
    assert torch.equal(epochs[0], ~epochs[1])
    assert torch.equal(epochs[0], epochs[2])
    assert torch.equal(epochs[1], epochs[3])
    assert torch.equal(mirrored(dataset.to(torch.device("cpu")), 1), epochs[1])
    assert not torch.equal(mirrored(AlternatingFlip(InMemory(IMAGES, torch.arange(40)), seed=2), 0), epochs[0])
    assert torch.equal(dataset[3].image, dataset.__getitems__(torch.tensor([3])).image[0])


def test_the_loader_tells_the_epoch():
    loader = Loader(AlternatingFlip(InMemory(IMAGES, torch.arange(40))), 40, shuffle=True)
    seen = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        (batch,) = loader
        seen.append(batch.image[batch.label.argsort()])
    assert torch.equal(seen[0], seen[1].flip(-1))


def test_a_datamodule_mirrors_its_training_images_only(monkeypatch):
    read = InMemory(IMAGES, torch.arange(40) % 10)
    monkeypatch.setattr(MNIST, "read", lambda self, train: read)
    sets = MNIST(alternating_flip=True, val_size=8, seed=3).make_datasets()
    assert [type(sets[split]) for split in ("train", "val", "test")] == [AlternatingFlip, InMemory, InMemory]
    assert sets["train"].seed == 3
