"""Two CPU processes measure what one process measures, and train as it does.

Run as a script, `python test_distributed.py FOLDER`, this file is the two processes: Lightning forks, and the process
of pytest must not be forked. They write what they saw into the folder.
"""

import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning import Callback

import processes
from datamodules.augment.images import Crop, Flip
from helpers import Synthetic, quiet_trainer
from zoo.classification.resnet_mini import ResNetMini

EPOCHS, BATCH = 2, 6


class WriteDown(Callback):
    """Keeps the raw batches of training and, at the end, writes them and the weights into a file of this rank."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.labels, self.images = folder, [], []

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        self.labels.append(batch.label)
        self.images.append(batch.image)

    def on_fit_end(self, trainer, module) -> None:
        path = self.folder / f"rank{trainer.global_rank}of{trainer.world_size}.pt"
        torch.save({"labels": self.labels, "images": self.images, "weights": module.net.state_dict()}, path)


def data(batch_size: int, **options) -> Synthetic:
    """Odd numbers of images, which two processes cannot share equally.

    In training each label is the name of its image; in evaluation there are four labels.
    """
    made = Synthetic(sizes=(51, 101, 97), batch_size=batch_size, eval_batch_size=10, num_classes=51, **options)
    made.setup("fit")
    for split, images in made.datasets.items():
        images.labels = torch.arange(len(images)) % (51 if split == "train" else 4)
    return made


def module() -> ResNetMini:
    torch.manual_seed(0)
    return ResNetMini(num_classes=51, widths=(4, 8), strides=(1, 2), optimizer=partial(torch.optim.SGD, lr=0.3))


def run(folder: Path, devices: int) -> None:
    """Trains, then measures the weights that two processes trained; each on `devices` processes."""
    several = {"devices": devices, "strategy": "ddp_notebook"} if devices > 1 else {}
    trainer = quiet_trainer(max_epochs=EPOCHS, callbacks=[WriteDown(folder)], num_sanity_val_steps=0, **several)
    trainer.fit(module(), datamodule=data(BATCH * 2 // devices, augment=[Crop(1), Flip()]))
    weights = torch.load(folder / "rank0of2.pt")["weights"]
    weights["head.2.bias"][:4] += 10  # so that some answers are right
    measured = {}
    for split in ("validate", "test"):
        model = module()
        model.net.load_state_dict(weights)
        trainer = quiet_trainer(**several)
        (found,) = getattr(trainer, split)(model, datamodule=data(BATCH), verbose=False)
        measured |= found
    torch.save(measured, folder / f"measured by {devices}.pt")


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> dict[str, dict]:
    """What two processes wrote and what one did, by file name."""
    folder = tmp_path_factory.mktemp("distributed")
    processes.run(__file__, folder)
    run(folder, devices=1)
    return {path.stem: torch.load(path) for path in folder.glob("*.pt")}


@pytest.mark.parametrize("split", ["val", "test"])
def test_two_ranks_measure_the_accuracy_of_one_when_they_cannot_share_equally(written, split):
    alone, together = (written[f"measured by {devices}"][f"{split}/acc"] for devices in (1, 2))
    assert 0 < alone < 1
    assert together == alone


@pytest.mark.parametrize("split", ["val", "test"])
def test_two_ranks_measure_the_loss_of_one_when_they_cannot_share_equally(written, split):
    alone, together = (written[f"measured by {devices}"][f"{split}/loss"] for devices in (1, 2))
    assert together == pytest.approx(alone, rel=1e-6)


def test_two_ranks_are_given_the_global_batches_of_one_and_augment_them_differently(written):
    first, second, alone = (written[name]["labels"] for name in ("rank0of2", "rank1of2", "rank0of1"))
    steps = EPOCHS * (51 // (2 * BATCH))
    assert len(first) == len(second) == len(alone) == steps
    for a, b, both in zip(first, second, alone, strict=True):
        assert sorted(torch.cat([a, b]).tolist()) == sorted(both.tolist())
    assert first[0].tolist() != first[steps // EPOCHS].tolist()
    assert not torch.equal(written["rank0of2"]["images"][0], written["rank1of2"]["images"][0])


if __name__ == "__main__":
    run(Path(sys.argv[1]), devices=2)
