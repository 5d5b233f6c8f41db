"""The callbacks that change gradients, weights, batches or augmentation do that, and only where they should."""

from functools import partial

import pytest
import torch
from torch import nn

from callback_runs import data, fit, model
from callbacks.monitors.activation_stats import ActivationStats
from callbacks.training.batch_transform import BatchTransform
from callbacks.training.gradients import GradientNoise, GradientNormalization
from callbacks.training.l1 import L1
from callbacks.training.no_augmentation import NoAugmentation
from datamodules.augment.images import ImageAugmentation
from helpers import fingerprint_of_global_randomness, quiet_trainer
from zoo.classification.plain_conv import PlainConv


class Breaks(PlainConv):
    """Fails in its second step."""

    def training_step(self, batch, batch_idx):
        if batch_idx == 1:
            raise RuntimeError("broken")
        return super().training_step(batch, batch_idx)


# Gradients and weights


def gradients_after(callback, weight_of: PlainConv, step_of=None) -> list[torch.Tensor]:
    module = weight_of
    for p in module.parameters():
        p.grad = torch.ones_like(p)
    trainer = quiet_trainer()
    if step_of is not None:
        trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress.total.completed = step_of
        trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed = step_of
    trainer.strategy._lightning_module = module
    callback.on_before_optimizer_step(trainer, module, torch.optim.SGD(module.parameters(), lr=1.0))
    return [p.grad for p in module.parameters()]


def test_gradient_noise_has_the_given_variance_and_is_new_in_every_step():
    noise = torch.cat([(g - 1).flatten() for g in gradients_after(GradientNoise(eta=0.25), model(), 0)])
    assert noise.std().item() == pytest.approx(0.5, rel=0.02)
    assert abs(noise.mean().item()) < 0.02
    again = torch.cat([(g - 1).flatten() for g in gradients_after(GradientNoise(eta=0.25), model(), 0)])
    later = torch.cat([(g - 1).flatten() for g in gradients_after(GradientNoise(eta=0.25), model(), 99)])
    assert torch.equal(noise, again)
    assert later.std().item() == pytest.approx(0.5 / 100 ** (0.55 / 2), rel=0.02)
    assert abs(torch.corrcoef(torch.stack([noise, later]))[0, 1]) < 0.02


def test_gradient_noise_leaves_the_global_random_state():
    callback, trainer, module = GradientNoise(), quiet_trainer(), nn.Linear(2, 2)
    module.weight.grad = torch.zeros(2, 2)
    module.device = torch.device("cpu")
    before = fingerprint_of_global_randomness()
    callback.on_before_optimizer_step(trainer, module, torch.optim.SGD(module.parameters(), lr=1.0))
    assert fingerprint_of_global_randomness() == before
    assert module.weight.grad.any()


def test_gradient_normalization_gives_every_gradient_norm_1():
    for gradient in gradients_after(GradientNormalization(), model()):
        assert gradient.norm().item() == pytest.approx(1.0, rel=1e-4)


def test_l1_is_the_gradient_of_the_sum_of_sizes():
    strength, module = 0.01, model()
    by_hand, x = model(), torch.randn(4, 1, 28, 28)
    (module(x).square().mean()).backward()
    L1(strength).on_before_optimizer_step(None, module, None)
    (by_hand(x).square().mean() + strength * sum(p.abs().sum() for p in by_hand.parameters() if p.ndim > 1)).backward()
    for ours, theirs in zip(module.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_l1_makes_weights_sparse_and_reports_how_sparse():
    plain, sparse = L1(0.0, zero=5e-3), L1(0.3, zero=5e-3)
    fit(model(), plain, max_epochs=8)
    fit(model(), sparse, max_epochs=8)
    assert sparse.sparsity.keys() == L1.weights(model()).keys()
    assert sum(sparse.sparsity.values()) > 5 * sum(plain.sparsity.values())


# Batches


def inverted(batch):
    return batch._replace(image=-batch.image)


@pytest.mark.parametrize(("training", "evaluation"), [(True, False), (False, True), (True, True)])
def test_a_batch_transform_is_applied_where_it_should_be_and_removed_afterwards(training, evaluation):
    def run(*callbacks) -> dict[str, list[torch.Tensor]]:
        found: dict[str, list[torch.Tensor]] = {"train": [], "val": []}

        class Keeps(PlainConv):
            def training_step(self, batch, batch_idx):
                found["train"].append(batch.image.clone())
                return super().training_step(batch, batch_idx)

            def validation_step(self, batch, batch_idx, dataloader_idx=0):
                found["val"].append(batch.image.clone())
                return super().validation_step(batch, batch_idx, dataloader_idx)

        source = data()
        options = {"max_epochs": 1, "num_sanity_val_steps": 0, "callbacks": list(callbacks)}
        quiet_trainer(**options).fit(Keeps(optimizer=partial(torch.optim.SGD, lr=0.0)), datamodule=source)
        assert "on_after_batch_transfer" not in vars(source)
        return found

    plain, changed = run(), run(BatchTransform(inverted, training, evaluation))
    for split, is_on in (("train", training), ("val", evaluation)):
        for a, b in zip(plain[split], changed[split], strict=True):
            assert torch.equal(b, -a if is_on else a)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BatchTransform(inverted, training=False), "training and evaluation are both false"),
        (lambda: GradientNoise(-1.0), "eta is -1.0"),
        (lambda: L1(-1.0), "strength is -1.0"),
        (lambda: ActivationStats(0), "every_n_steps is 0"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Augmentation


class Counted(ImageAugmentation):
    """Changes nothing and counts how often."""

    calls = 0

    def image(self, image, generator):
        self.calls += 1
        return image


def test_the_last_epochs_see_the_images_as_they_are_and_the_next_training_all_augmentation():
    counted, callback = Counted(), NoAugmentation(2)
    images = data(augment=[counted])
    for _ in range(2):
        counted.calls = 0
        quiet_trainer(callbacks=[callback], max_epochs=5, num_sanity_val_steps=0).fit(model(), datamodule=images)
        assert counted.calls == 3 * 4  # epochs, batches
        assert images.augment == [counted]


def test_augmentation_comes_back_when_training_breaks():
    images = data(augment=[Counted()])
    with pytest.raises(RuntimeError, match="broken"):
        quiet_trainer(callbacks=[NoAugmentation(1)], max_epochs=1).fit(Breaks(), datamodule=images)
    assert len(images.augment) == 1


def test_no_augmentation_needs_epochs_and_an_augmentation():
    with pytest.raises(ValueError, match="last_epochs is 0: expected 1 or more"):
        NoAugmentation(0)
    bare = data()
    del bare.augment
    with pytest.raises(ValueError, match="Synthetic has no `augment` to switch off"):
        quiet_trainer(callbacks=[NoAugmentation(1)], max_epochs=1).fit(model(), datamodule=bare)
    with pytest.raises(ValueError, match="max_epochs is -1: which epochs are the last"):
        quiet_trainer(callbacks=[NoAugmentation(1)], max_epochs=-1, max_steps=4).fit(model(), datamodule=data())
