"""Each system learns one batch of images with random labels by heart, within a few dozen steps."""

from functools import partial

import pytest
import torch
from lightning import Callback

from helpers import Synthetic, classifiers, quiet_trainer, usual_shape
from zoo.parts.optim.schedules import Constant

STEPS, ENOUGH = 60, 0.1  # cross-entropy; guessing gives 2.3


class Losses(Callback):
    """Keeps the losses and stops when the last is small enough."""

    def __init__(self) -> None:
        self.all: list[float] = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self.all.append(outputs["loss"].item())
        trainer.should_stop = self.all[-1] < ENOUGH


@pytest.mark.parametrize("system", classifiers(), ids=lambda system: system.__name__)
def test_it_learns_a_batch_by_heart(system):
    torch.manual_seed(0)
    model = system(optimizer=partial(torch.optim.AdamW, lr=1e-2), schedule=Constant)
    data, losses = Synthetic(sizes=(16, 0, 16), image_shape=usual_shape(system), batch_size=16), Losses()
    trainer = quiet_trainer(max_steps=STEPS, callbacks=[losses], limit_val_batches=0)
    trainer.fit(model, datamodule=data)
    assert losses.all[0] > 1
    assert losses.all[-1] < ENOUGH, losses.all
