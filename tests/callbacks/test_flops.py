"""The work of a training is counted right, also where torch's own formula is not."""

import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from callbacks.monitors.flops import BACKWARD, FlopCounter
from helpers import quiet_trainer


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.Conv2d(8, 16, 3, groups=4),
        nn.Conv2d(8, 8, 5, groups=8, dilation=2),
        nn.Conv1d(8, 4, 3),
        nn.ConvTranspose2d(8, 16, 4, stride=2),
        nn.ConvTranspose2d(8, 8, 3, groups=8),
    ],
)
def test_the_two_gradients_of_a_convolution_each_cost_as_much_as_its_output(layer):
    x = torch.randn(2, 8, *[20] * (layer.weight.ndim - 2), requires_grad=True)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        layer(x)
    with FlopCounterMode(display=False, custom_mapping=BACKWARD) as whole:
        layer(x).sum().backward()
    with FlopCounterMode(display=False, custom_mapping=BACKWARD) as first_layer:
        layer(x.detach()).sum().backward()  # images need no gradient
    assert whole.get_total_flops() == 3 * forward.get_total_flops()
    assert first_layer.get_total_flops() == 2 * forward.get_total_flops()


def test_operations_and_samples_of_a_training_are_counted_and_continue_after_a_resume(tmp_path):
    counter = FlopCounter()
    trainer = quiet_trainer(max_epochs=2, limit_train_batches=3, limit_val_batches=0, callbacks=[counter])
    trainer.fit(BoringModel())  # batches of one sample with 32 numbers, and a linear layer to two
    assert counter.samples == 6
    assert counter.tflop == pytest.approx(6 * (2 + 2) * 32 * 2 / 1e12)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    resumed = FlopCounter()
    trainer = quiet_trainer(max_epochs=3, limit_train_batches=3, limit_val_batches=0, callbacks=[resumed])
    trainer.fit(BoringModel(), ckpt_path=tmp_path / "a.ckpt", weights_only=False)
    assert resumed.samples == 9
    assert resumed.tflop == pytest.approx(1.5 * counter.tflop)
