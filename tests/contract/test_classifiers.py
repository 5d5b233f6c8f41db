"""What every classifier keeps besides the contract of all systems: logits, both kinds of labels, averaged views."""

import re
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from lightning import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cases import case_of, make, systems
from datamodules.batches import Labelled
from helpers import Synthetic, quiet_trainer
from zoo.classification.base import Classifier, logits_of
from zoo.classification.plain_conv import PlainConv
from zoo.classification.resnet_mini import ResNetMini

every_classifier = pytest.mark.parametrize(
    "system", [system for system in systems() if issubclass(system, Classifier)], ids=lambda system: system.__name__
)


def a_little_trained(system: type[Classifier], **options) -> tuple[Classifier, Tensor]:
    """A module in eval mode whose norms have seen data, and two images."""
    data = case_of(system).data(None)
    model = make(system, data, **options)
    x = torch.randn(2, *data.image_shape, generator=torch.Generator().manual_seed(0))
    model.train()(x)
    return model.eval(), x


@every_classifier
def test_a_net_is_its_stem_then_its_stages_then_its_head(system):
    model, x = a_little_trained(system)
    net = model.net
    with torch.no_grad():
        if not getattr(net, "extras", ()):
            assert torch.equal(net(x), net.head(net.stages(net.stem(x))))
        assert torch.equal(model(x), net(x))


@every_classifier
@pytest.mark.parametrize("num_classes", [10, 3])
def test_it_maps_images_to_logits(system, num_classes):
    model, x = a_little_trained(system, num_classes=num_classes)
    assert model(x).shape == (2, num_classes)
    assert model.num_classes == num_classes


@every_classifier
@pytest.mark.parametrize("side", [2, 5])
def test_it_trains_on_small_images_or_names_their_size(system, side):
    data = case_of(system).data(None)
    model = make(system, data)
    small = Synthetic(image_shape=(data.image_shape[0], side, side), num_classes=data.num_classes, batch_size=10)
    refusal = None
    try:
        quiet_trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0).fit(model, datamodule=small)
    except ValueError as error:
        refusal = str(error)
    assert refusal is None or re.search(rf"images \w+ {side} ?x ?{side} pixels", refusal)


class Values(Callback):
    """Has a module take one batch, and keeps the loss of the step and the metrics that it logs."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []

    def on_train_batch_end(self, trainer, module, outputs, *_) -> None:
        self.losses.append(outputs["loss"])


class Fixed(Synthetic):
    """One batch whose labels are given."""

    def __init__(self, label: Tensor, **options) -> None:
        super().__init__((len(label), 0, 0), batch_size=len(label), **options)
        self.label = label

    def on_after_batch_transfer(self, batch: Labelled, dataloader_idx: int) -> Labelled:
        return super().on_after_batch_transfer(batch, dataloader_idx)._replace(label=self.label)


def train_step(system: type[Classifier], label: Tensor, **options) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of the first training step, and what was logged as loss and accuracy."""
    shape, seen = case_of(system).data(None).image_shape, Values()
    model = make(system, case_of(system).data(None), optimizer=partial(torch.optim.SGD, lr=0.0), **options)
    trainer = quiet_trainer(max_epochs=1, limit_val_batches=0, callbacks=[seen])
    torch.manual_seed(1)  # of dropout
    trainer.fit(model, datamodule=Fixed(label, image_shape=shape))
    metrics = trainer.callback_metrics
    return seen.losses[0], metrics["train/loss"], metrics["train/acc"]


@every_classifier
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_labels_as_indices_and_as_shares_give_equal_loss_and_accuracy(system, label_smoothing):
    label = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6])
    hard = train_step(system, label, label_smoothing=label_smoothing)
    soft = train_step(system, F.one_hot(label, 10).float(), label_smoothing=label_smoothing)
    for a, b in zip(hard, soft, strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(hard[0], hard[1])


def test_mixed_labels_count_by_their_shares():
    """Two images each of which is 0.7 of the class that is predicted, or 0.3 of it."""
    torch.manual_seed(0)
    model = PlainConv()
    images = torch.randn(2, 1, 28, 28)
    predicted = model.eval()(images).argmax(1)
    label = torch.zeros(2, 10)
    label[0, predicted[0]], label[0, (predicted[0] + 1) % 10] = 0.7, 0.3
    label[1, predicted[1]], label[1, (predicted[1] + 1) % 10] = 0.3, 0.7
    (logged,) = quiet_trainer().validate(model, DataLoader([Labelled(images, label)], batch_size=None), verbose=False)
    assert logged["val/acc"] == pytest.approx(0.5)
    by_hand = -(label * model(images).log_softmax(1)).sum(1).mean()
    assert logged["val/loss"] == pytest.approx(by_hand.item(), rel=1e-5)


class EpochByEpoch(Callback):
    """Per split and epoch, the mean over its samples of the loss in the steps' own outputs, and what was logged."""

    def __init__(self) -> None:
        self.found = {"train": [], "val": []}
        self.logged = {"train": [], "val": []}
        self.losses = {"train": [], "val": []}

    def on_train_batch_end(self, trainer, module, outputs, batch, *_) -> None:
        self.losses["train"] += [outputs["loss"].item()] * len(batch.label)

    def on_validation_batch_end(self, trainer, module, outputs, batch, *_) -> None:
        self.losses["val"] += [outputs["loss"].item()] * len(batch.label)

    def close(self, trainer, split: str) -> None:
        self.found[split].append(sum(self.losses[split]) / len(self.losses[split]))
        self.logged[split].append(float(trainer.callback_metrics[f"{split}/loss"]))
        self.losses[split] = []

    def on_train_epoch_end(self, trainer, module) -> None:
        self.close(trainer, "train")

    def on_validation_end(self, trainer, module) -> None:
        self.close(trainer, "val")


def test_what_is_logged_is_of_its_own_epoch_and_exact_over_unequal_batches():
    model, seen = PlainConv(optimizer=partial(torch.optim.SGD, lr=0.05)), EpochByEpoch()
    trainer = quiet_trainer(max_epochs=3, callbacks=[seen])  # with Lightning's own sanity check first
    trainer.fit(model, datamodule=Synthetic(batch_size=16, image_shape=(1, 28, 28)))  # 40 are 16 + 16 + 8
    for split, epochs in (("train", 3), ("val", 4)):
        assert len(set(seen.found[split])) == epochs, "no two epochs are the same"
        assert seen.logged[split] == pytest.approx(seen.found[split], rel=1e-5)


@every_classifier
def test_flip_tta_makes_evaluation_blind_to_mirroring(system):
    model, x = a_little_trained(system, flip_tta=True)
    with torch.no_grad():
        torch.testing.assert_close(model(x), model(x.flip(-1)), atol=1e-5, rtol=1e-4)
        assert not torch.allclose(model.net(x), model.net(x.flip(-1)))


@every_classifier
def test_shift_tta_averages_over_the_image_and_its_four_neighbors(system):
    """A shifted image, without what is new at its border, is `torch.roll` of it."""
    model, x = a_little_trained(system, shift_tta=1)
    x[..., :2, :] = x[..., -2:, :] = x[..., :2] = x[..., -2:] = 0.0
    with torch.no_grad():
        views = [model.net(x.roll((dy, dx), (2, 3))) for dy, dx in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))]
        torch.testing.assert_close(model(x), sum(views) / 5, atol=1e-5, rtol=1e-4)
        torch.manual_seed(0)  # of dropout
        single = logits_of(model.train()(x))
        torch.manual_seed(0)
        torch.testing.assert_close(single, logits_of(model.net(x)))  # in training there is one view


def test_a_module_of_ones_own_without_a_cam_target_offers_its_last_stage():
    net = nn.Sequential()
    net.stem, net.stages, net.head = nn.Conv2d(1, 4, 3), nn.Sequential(nn.ReLU(), nn.Tanh()), nn.Flatten()
    assert Classifier(net, num_classes=4).cam_target is net.stages[-1]
    assert Classifier(nn.Linear(2, 4), num_classes=4).cam_target is None


def test_a_checkpoint_of_another_system_or_size_is_an_error(tmp_path):
    data = Synthetic(image_shape=(1, 28, 28))
    trainer = quiet_trainer(max_steps=1, limit_val_batches=0)
    trainer.fit(ResNetMini(), datamodule=data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    for other, why in ((PlainConv(), "expected a zoo.*PlainConv"), (ResNetMini(widths=(4, 8, 16)), r"widths is .* 16")):
        with pytest.raises(ValueError, match=rf"the checkpoint holds a zoo\.classification\.resnet_mini.*{why}"):
            quiet_trainer().validate(other, datamodule=data, ckpt_path=tmp_path / "a.ckpt", verbose=False)
