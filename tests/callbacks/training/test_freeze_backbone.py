"""A frozen backbone stays bit-equal until its epoch, and the head learns from the first step, also after a resume."""

from functools import partial

import pytest
import torch
from lightning import Callback, LightningModule
from torch import nn

from callback_runs import data, model
from callbacks.training.freeze_backbone import FreezeBackbone
from helpers import quiet_trainer
from zoo.classification.plain_conv import PlainConv
from zoo.parts.optim.muon import Muon


class Epochs(Callback):
    """The state of the net at the start of each epoch and at the end, and a checkpoint at the start of an epoch."""

    def __init__(self, path=None, save_at: int = -1) -> None:
        self.states, self.path, self.save_at = [], path, save_at

    def on_train_epoch_end(self, trainer, module) -> None:
        self.states.append({name: value.clone() for name, value in module.net.state_dict().items()})
        if trainer.current_epoch == self.save_at:
            trainer.save_checkpoint(self.path)

    def changed(self, epoch: int) -> set[str]:
        """Children of the net of which anything changed in that epoch, counted from 1."""
        before, after = self.states[epoch - 1 : epoch + 1]
        return {name.split(".")[0] for name in after if not torch.equal(before[name], after[name])}


def fit(module: LightningModule, *callbacks: Callback, **options) -> LightningModule:
    trainer = quiet_trainer(max_epochs=4, callbacks=list(callbacks))
    trainer.fit(module, datamodule=data(), **options)
    return module


@pytest.mark.parametrize("optimizer", [partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.1), Muon])
def test_only_the_head_learns_at_first_and_norms_keep_their_statistics(optimizer):
    torch.manual_seed(0)
    module, epochs = PlainConv(norm=nn.BatchNorm2d, optimizer=optimizer), Epochs()
    start = {name: value.clone() for name, value in module.net.state_dict().items()}
    fit(module, FreezeBackbone(2), epochs)
    epochs.states.insert(0, start)
    assert [epochs.changed(epoch) for epoch in (1, 2)] == [{"head"}] * 2
    assert [epochs.changed(epoch) for epoch in (3, 4)] == [{"stem", "stages", "head"}] * 2
    assert not torch.equal(epochs.states[2]["stem.1.running_mean"], epochs.states[3]["stem.1.running_mean"])
    assert all(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize("epoch", [0, 2])
def test_a_resumed_training_ends_equal(tmp_path, epoch):
    whole = fit(model(), FreezeBackbone(2), Epochs(tmp_path / "a.ckpt", save_at=epoch))
    again = fit(model(), FreezeBackbone(2), ckpt_path=tmp_path / "a.ckpt")
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_what_was_frozen_before_stays_so_and_all_else_is_as_before_after_a_failure():
    module = model()
    module.net.stem.requires_grad_(False)

    class Fails(Callback):
        def on_train_batch_end(self, *_) -> None:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fit(module, FreezeBackbone(), Fails())
    assert {name.split(".")[0] for name, p in module.net.named_parameters() if not p.requires_grad} == {"stem"}


def test_a_module_without_a_backbone_and_no_epochs_are_refused():
    class Other(LightningModule):
        pass

    with pytest.raises(ValueError, match="Other has no `backbone` to freeze"):
        FreezeBackbone().on_fit_start(quiet_trainer(), Other())
    with pytest.raises(ValueError, match="epochs is 0: expected 1 or more"):
        FreezeBackbone(0)
