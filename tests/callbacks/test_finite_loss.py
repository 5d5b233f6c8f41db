"""A training ends at the first loss that is not a number, and no checkpoint is spoiled by it."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from callback_runs import data, model
from callbacks.runtime.finite_loss import EVERY, FiniteLoss
from helpers import quiet_trainer
from zoo.classification.plain_conv import PlainConv
from zoo.command.main import main
from zoo.parts.optim.schedules import OneCycle


class Diverges(PlainConv):
    """The loss of one step is not finite."""

    at = 0
    value = float("nan")

    def training_step(self, batch, batch_idx):
        result = super().training_step(batch, batch_idx)
        if self.global_step == self.at:
            result["loss"] = result["loss"] * self.value
        return result


def diverging(at: int, value: float) -> Diverges:
    module = Diverges(optimizer=model().optimizer, schedule=model().schedule)
    module.at, module.value = at, value
    return module


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("at", [0, 3, EVERY + 5])
def test_the_first_bad_step_is_named_with_its_rate_and_samples_and_the_last_checkpoint_is_whole(tmp_path, at, value):
    """Four steps are an epoch: what the checkpoint holds is from the end of the last epoch before the bad step."""
    saving = ModelCheckpoint(tmp_path, filename="last", enable_version_counter=False)
    set_up = data()
    trainer = quiet_trainer(
        max_epochs=10, num_sanity_val_steps=0, callbacks=[FiniteLoss(), saving], enable_checkpointing=True
    )
    with pytest.raises(ValueError, match=rf"in epoch {at // 4 + 1}, step {at + 1}, at learning rate 0\.01") as error:
        trainer.fit(diverging(at, value), datamodule=set_up)
    first = set_up.train_loader.batches()[at % 4][0].item()
    assert f"samples {first}," in str(error.value)
    assert "detect_anomaly" in str(error.value)
    if at >= 4:
        checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
        assert str(tmp_path / "last.ckpt") in str(error.value)
        assert checkpoint["global_step"] == at // 4 * 4
        assert all(tensor.isfinite().all() for tensor in checkpoint["state_dict"].values())
    else:
        assert not list(tmp_path.iterdir())


def test_the_rate_is_that_of_the_step_and_not_of_the_next():
    module, trainer = diverging(0, float("nan")), quiet_trainer(max_epochs=2, callbacks=[FiniteLoss()])
    module.schedule = OneCycle
    with pytest.raises(ValueError, match=r"step 1, at learning rate 0\.0004, "):  # 0.04 of 0.01
        trainer.fit(module, datamodule=data())


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    """The last step of a training can spoil the weights without a loss that tells."""
    module, trainer = model(), quiet_trainer(max_epochs=1, num_sanity_val_steps=0, callbacks=[FiniteLoss()])
    trainer.fit(module, datamodule=data())
    trainer.save_checkpoint(tmp_path / "whole.ckpt")
    with torch.no_grad():
        module.net.head[0].bias[0] = float("nan")
    with pytest.raises(ValueError, match=r"net\.head\.0\.bias"):
        trainer.save_checkpoint(tmp_path / "spoiled.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["whole.ckpt"]


def test_the_command_ends_with_one_line_and_status_2(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    options = ["--trainer.accelerator", "cpu", "--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "1e30"]
    assert main(["fit", "digits/small", *options]) == 2
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert "learning rate" in last
    assert "--trainer.detect_anomaly true" in last
    assert not list(Path("runs").rglob("*.ckpt"))
