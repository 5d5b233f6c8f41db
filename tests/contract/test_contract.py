"""The contract of every system: gradients, evaluation, learning, checkpoints, resuming, checks against the data."""

from pathlib import Path

import pytest
import torch
from lightning import Callback, LightningModule
from torch import Tensor, nn

from cases import case_of, children, make, parameters, systems, write_files
from datamodules.base import Data
from helpers import quiet_trainer
from zoo.classification.base import Classifier
from zoo.detection.base import Detector
from zoo.language.base import LanguageModel
from zoo.system import System

every_system = pytest.mark.parametrize("system", systems(), ids=lambda system: system.__name__)
LAYERED = (Classifier, Detector, LanguageModel)  # shelves whose nets are a stem, stages or blocks, and a head


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("contract"))


@pytest.fixture
def data(system: type[System], folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Data:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # of trained tokenizers
    monkeypatch.setenv("ZOO_DATA", str(folder))
    return case_of(system).data(folder)


def fit(module: System, data: Data, *callbacks: Callback, **options):
    trainer = quiet_trainer(callbacks=list(callbacks), **{"limit_val_batches": 0, "max_steps": 3} | options)
    trainer.fit(module, datamodule=data)
    return trainer


def test_every_system_has_a_case():
    assert {system.__name__ for system in systems() if issubclass(system, Classifier)} > {"ResNet18", "ViT"}
    for system in systems():
        case_of(system)


class Gradients(Callback):
    """The names of trained parameters without a finite gradient, and of those whose gradient was never other than 0."""

    def on_fit_start(self, trainer, module) -> None:
        self.broken, self.zero = set(), {name for name, p in module.net.named_parameters() if p.requires_grad}

    def on_before_optimizer_step(self, trainer, module, optimizer) -> None:
        for name, p in module.net.named_parameters():
            if p.requires_grad and (p.grad is None or not p.grad.isfinite().all()):
                self.broken.add(name)
            elif p.grad is not None and p.grad.any():
                self.zero.discard(name)


@every_system
def test_every_trained_parameter_gets_a_finite_gradient_that_is_not_always_zero(system, data):
    gradients = Gradients()
    module = make(system, data)
    fit(module, data, gradients)  # three steps: layers that start at zero pass gradients on from the second step
    assert gradients.broken == set()
    assert gradients.zero == set()
    assert {name.split(".")[0] for name, p in module.named_parameters() if p.requires_grad} == {"net"}


def first_of(part):
    return [first_of(each) for each in part][:1] if isinstance(part, list) else part[:1] if part is not None else None


@every_system
def test_in_evaluation_a_sample_ignores_the_others(system, data):
    if system.predict_step is LightningModule.predict_step:
        pytest.skip("it does not predict from a batch")
    module, found = make(system, data), []
    fit(module, data)
    predictions = quiet_trainer(limit_predict_batches=1, callbacks=[Batches(found)]).predict(module, datamodule=data)
    batch, together = found[0], predictions[0]
    with torch.no_grad():
        alone = module.eval().predict_step(type(batch)(*(first_of(part) for part in batch)), 0)
    for a, b in zip(of_first_sample(alone), of_first_sample(together), strict=True):
        torch.testing.assert_close(
            a[: len(alone)] if a.ndim else a, b[: len(alone)] if b.ndim else b, atol=1e-4, rtol=1e-3
        )


class Batches(Callback):
    """Keeps the batches of a prediction."""

    def __init__(self, found: list) -> None:
        self.found = found

    def on_predict_batch_start(self, trainer, module, batch, *_) -> None:
        self.found.append(batch)


def of_first_sample(prediction) -> list[Tensor]:
    """A tensor of the first sample, or the tensors of its detections."""
    first = prediction[0]
    return [first] if isinstance(first, Tensor) else list(first.values())


class OneBatch(Callback):
    """Has every step see the first batch of the training, and stops once its loss is small enough."""

    def __init__(self, enough: float) -> None:
        self.enough, self.losses = enough, []

    def on_fit_start(self, trainer, module) -> None:
        step, kept = module.step, []

        def same_batch(batch, split):
            kept.append(batch)
            return step(kept[0], split)

        module.step = same_batch

    def on_train_batch_end(self, trainer, module, outputs, *_) -> None:
        self.losses.append(outputs["loss"].item())
        trainer.should_stop = self.losses[-1] < self.enough * self.losses[0]


@every_system
def test_a_batch_is_learned_by_heart(system, data):
    one_batch = OneBatch(case_of(system).learned)
    fit(make(system, data), data, one_batch, max_steps=150)
    assert one_batch.losses[-1] < one_batch.enough * one_batch.losses[0], one_batch.losses[::10]


class SaveAt(Callback):
    """Saves a checkpoint after a step."""

    def __init__(self, path: Path, step: int) -> None:
        self.path, self.step = path, step

    def on_train_batch_end(self, trainer, module, *_) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


@every_system
def test_a_resumed_training_ends_bit_equal_and_a_saved_system_comes_back_equal(system, data, folder, tmp_path):
    """Saved in the middle of the second epoch of six steps, continued in another object with another seed."""
    whole = make(system, data)
    fit(whole, data, SaveAt(tmp_path / "a.ckpt", 8), max_steps=12, max_epochs=None)
    again, fresh = case_of(system).data(folder), make(system, data, seed=1)
    trainer = quiet_trainer(limit_val_batches=0, max_steps=12)
    trainer.fit(fresh, datamodule=again, ckpt_path=tmp_path / "a.ckpt")
    assert_equal_states(whole, fresh)
    trainer.save_checkpoint(tmp_path / "b.ckpt")
    loaded = system.load_from_checkpoint(tmp_path / "b.ckpt", weights_only=True)
    assert_equal_states(whole, loaded)
    assert loaded.is_initialized
    saved = torch.load(tmp_path / "b.ckpt", weights_only=True)
    assert saved["module"] == f"{system.__module__}.{system.__qualname__}"
    assert saved["data"] == again.metadata()


def assert_equal_states(a: nn.Module, b: nn.Module) -> None:
    ours, theirs = a.state_dict(), b.state_dict()
    assert ours.keys() == theirs.keys()
    assert [name for name, value in ours.items() if not torch.equal(value, theirs[name])] == []


@every_system
@pytest.mark.parametrize("size", System.from_data)
def test_data_of_another_size_are_refused_in_one_line(system, data, size, monkeypatch):
    if size not in parameters(system) or not hasattr(data, size):
        pytest.skip("the system has no such size")
    module = make(system, data)
    data.setup("validate")
    monkeypatch.setattr(data if size in vars(data) else type(data), size, 77)
    with pytest.raises(ValueError, match=rf"{size} is \d+, but the data have 77 \w+: expected the same number"):
        quiet_trainer().validate(module, datamodule=data)


@every_system
def test_the_net_has_the_children_that_it_declares(system, data):
    if not issubclass(system, LAYERED):
        pytest.skip("its shelf does not ask for a stem, stages and a head")
    net = make(system, data).net
    extras = list(getattr(net, "extras", ()))
    middle = "stages" if hasattr(net, "stages") else "blocks"
    assert set(children(net)) == {"stem", middle, "head", *extras}
    assert not any(type(module).__module__.startswith("lightning") for module in net.modules())


@every_system
def test_the_cam_target_is_a_module_of_the_net_whose_output_can_be_made_maps(system, data):
    module, found = make(system, data), []
    if not hasattr(data, "image_shape") or module.cam_target is None:
        pytest.skip("it has no maps to look at")
    assert any(part is module.cam_target for part in module.net.modules())
    handle = module.cam_target.register_forward_hook(lambda part, inputs, output: found.append(output))
    quiet_trainer(limit_predict_batches=1).predict(module, datamodule=data)
    handle.remove()
    maps = module.cam_reshape(found[0]) if module.cam_reshape else found[0]
    assert maps.ndim == 4
    assert len(maps) == len(found[0])


@every_system
def test_every_metric_that_is_logged_has_an_axis_of_its_own_or_is_part_of_the_loss(system, data):
    module = make(system, data)
    names = {name.partition("/")[2] for name in module.metrics}
    assert names <= module.axes.keys()
