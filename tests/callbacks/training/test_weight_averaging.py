"""The average of the weights is the recursion that it says it is, and forgets the initial weights."""

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging

from callback_runs import data, model
from callbacks.training.weight_averaging import EMA
from helpers import quiet_trainer
from zoo.classification.plain_conv import PlainConv


class Recorded(PlainConv):
    """Keeps its weights after each step."""

    def on_train_batch_end(self, *_) -> None:
        self.history.append([parameter.detach().clone() for parameter in self.net.parameters()])


def train(callback, epochs: int) -> Recorded:
    torch.manual_seed(0)
    module = Recorded(optimizer=model().optimizer, schedule=model().schedule)
    module.history = [[parameter.detach().clone() for parameter in module.net.parameters()]]
    quiet_trainer(max_epochs=epochs, num_sanity_val_steps=0, callbacks=[callback]).fit(module, datamodule=data())
    return module


def recursion(history: list[list[torch.Tensor]], decay: float) -> list[torch.Tensor]:
    average = history[1]  # the first update copies
    for step, weights in enumerate(history[2:], start=1):
        kept = min(decay, (1 + step) / (10 + step))
        average = [kept * a + (1 - kept) * w for a, w in zip(average, weights, strict=True)]
    return average


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.999])
def test_a_training_ends_with_the_average_of_its_steps(decay):
    module = train(EMA(decay), epochs=4)
    for mine, expected in zip(module.net.parameters(), recursion(module.history, decay), strict=True):
        assert torch.allclose(mine, expected, atol=1e-6)


def test_a_short_training_forgets_the_initial_weights_which_a_constant_decay_keeps():
    """A net whose weights jump once, in the first step, away from where they started."""

    class Jumps(Recorded):
        def on_train_batch_end(self, *_) -> None:
            with torch.no_grad():
                for parameter in self.net.parameters():
                    parameter.fill_(1.0 if self.global_step > 1 else 0.0)

    def share_of_the_first(callback) -> float:
        module = Jumps(optimizer=model(lr=0.0).optimizer, schedule=model().schedule)
        quiet_trainer(max_epochs=28, num_sanity_val_steps=0, limit_val_batches=0, callbacks=[callback]).fit(
            module, datamodule=data()
        )
        return 1 - next(module.net.parameters()).mean().item()

    assert share_of_the_first(EMA(0.995)) < 1e-4  # 112 steps
    assert share_of_the_first(EMAWeightAveraging(decay=0.995)) > 0.5


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2.0])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(ValueError, match=str(decay)):
        EMA(decay)
