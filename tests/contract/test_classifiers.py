"""Every classifier keeps the contract of its shelf, and no import goes against the arrow."""

import ast
import importlib
from functools import partial
from pathlib import Path

import pytest
import torch
import torchvision
from lightning import Callback
from torch import nn

from helpers import Synthetic, classifiers, quiet_trainer, usual_shape
from zoo.classification.plain_conv import PlainConv
from zoo.classification.resnet import ResNet, ResNet18
from zoo.classification.resnet_mini import ResNetMini

ROOT = Path(__file__).parents[1]
BASES = (  # of the shelves: what several systems share a training step with
    "zoo.classification.base",
    "zoo.detection.base",
    "zoo.generation.base",
    "zoo.language.base",
)
TOOLS = {ROOT / "zoo" / "detection" / "anchors.py"}  # on a shelf, but no system: a verb that reads data and draws
every_classifier = pytest.mark.parametrize("system", classifiers(), ids=lambda system: system.__name__)


def images(system: type, n: int = 2) -> torch.Tensor:
    return torch.randn(n, *usual_shape(system), generator=torch.Generator().manual_seed(0))


def a_little_trained(system: type, **options) -> tuple[nn.Module, torch.Tensor]:
    """A module in eval mode whose norms have seen data, and two images."""
    torch.manual_seed(0)
    model, x = system(**options), images(system)
    model.train()(x)
    return model.eval(), x


def test_the_shelf_is_not_empty():
    assert {"ResNet18", "PlainConv", "ResNetMini"} <= {system.__name__ for system in classifiers()}


@every_classifier
def test_a_net_is_its_stem_then_its_stages_then_its_head_and_nothing_else(system):
    model, x = a_little_trained(system)
    net = model.net
    assert [name for name, _ in net.named_children()] == ["stem", "stages", "head"]
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"net"}
    assert not any(type(module).__module__.startswith("lightning") for module in net.modules())
    with torch.no_grad():
        assert torch.equal(net(x), net.head(net.stages(net.stem(x))))
        assert torch.equal(model(x), net(x))


@every_classifier
@pytest.mark.parametrize("num_classes", [10, 3])
def test_it_maps_images_to_logits(system, num_classes):
    model, x = a_little_trained(system, num_classes=num_classes)
    assert model(x).shape == (2, num_classes)
    assert model.num_classes == num_classes


@every_classifier
def test_every_parameter_gets_a_finite_gradient_that_is_not_all_zero(system):
    torch.manual_seed(0)
    model = system()
    nn.functional.cross_entropy(model(images(system, 4)), torch.arange(4)).backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert [name for name, g in gradients.items() if g is None or not g.isfinite().all() or not g.any()] == []


@every_classifier
def test_in_evaluation_a_sample_ignores_the_others(system):
    model, x = a_little_trained(system)
    other = torch.stack([x[0], torch.randn_like(x[1])])
    with torch.no_grad():
        torch.testing.assert_close(model(x)[0], model(other)[0], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(model(x)[:1], model(x[:1]), atol=1e-4, rtol=1e-4)
        assert not torch.allclose(model(x)[1], model(other)[1])


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
    trainer = quiet_trainer(max_epochs=3, callbacks=[seen])  # with Lightning's own sanity check in front
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
def test_shift_tta_averages_over_the_image_and_its_four_neighbours(system):
    """A moved image, without what is new at its border, is `torch.roll` of it."""
    model, x = a_little_trained(system, shift_tta=1)
    x[..., :2, :] = x[..., -2:, :] = x[..., :2] = x[..., -2:] = 0.0
    with torch.no_grad():
        views = [model.net(x.roll((dy, dx), (2, 3))) for dy, dx in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))]
        torch.testing.assert_close(model(x), sum(views) / 5, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(model.train()(x), model.net(x))  # in training there is one view


@every_classifier
def test_its_cam_target_has_maps_large_enough_to_look_at(system):
    model, x = a_little_trained(system)
    target, maps = model.cam_target, []
    assert any(module is target for module in model.net.modules())
    with target.register_forward_hook(lambda module, inputs, output: maps.append(output)), torch.no_grad():
        model(x)
    assert model.cam_reshape is None
    assert len(maps) == 1
    assert maps[0].ndim == 4
    assert min(maps[0].shape[2:]) >= 5


@every_classifier
def test_a_saved_one_comes_back_equal(system, tmp_path):
    model, data = system(num_classes=3), Synthetic(image_shape=usual_shape(system), num_classes=3, batch_size=4)
    trainer = quiet_trainer(max_steps=1, limit_val_batches=0)
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    torch.manual_seed(1)
    again, x = system.load_from_checkpoint(tmp_path / "a.ckpt").eval(), images(system)
    assert again.num_classes == 3
    assert torch.equal(again(x), model.eval()(x))
    saved = torch.load(tmp_path / "a.ckpt", weights_only=False)
    assert saved["module"] == f"{system.__module__}.{system.__qualname__}"
    assert saved["data"]["classes"] == list(data.classes)


@every_classifier
def test_data_with_another_number_of_classes_is_an_error(system):
    with pytest.raises(ValueError, match="num_classes is 10, but the data have 4 classes"):
        quiet_trainer().validate(system(), datamodule=Synthetic(num_classes=4))


def test_a_checkpoint_of_another_system_or_size_is_an_error(tmp_path):
    data = Synthetic(image_shape=(1, 28, 28))
    trainer = quiet_trainer(max_steps=1, limit_val_batches=0)
    trainer.fit(ResNetMini(), datamodule=data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    for other in (PlainConv(), ResNetMini(widths=(4, 8, 16))):
        with pytest.raises(ValueError, match=r"the checkpoint holds a zoo\.classification\.small_resnet\.ResNetMini"):
            quiet_trainer().validate(other, datamodule=data, ckpt_path=tmp_path / "a.ckpt", verbose=False)


# Published numbers


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (ResNet18, 11_173_962),  # of the public CIFAR-10 variant
        (partial(ResNet, small_images=False, num_classes=1000), 11_689_512),  # of torchvision's
    ],
)
def test_parameters_are_as_many_as_published(make, count):
    assert sum(p.numel() for p in make().parameters()) == count


def test_resnet18_equals_torchvisions():
    torch.manual_seed(0)
    theirs, ours = torchvision.models.resnet18(), ResNet(small_images=False, num_classes=1000)
    x = torch.randn(2, 3, 96, 96)
    theirs(x)  # so that the running statistics are not those of the start
    from_, to = theirs.state_dict(), ours.state_dict()
    assert [value.shape for value in from_.values()] == [value.shape for value in to.values()]
    ours.load_state_dict(dict(zip(to, from_.values(), strict=True)))
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), atol=1e-4, rtol=1e-4)


# Imports


def modules_below(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """The dotted names that a file imports, also inside its functions."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    assert not any(node.level for node in froms), f"{path}: relative import"
    return plain | {f"{node.module}.{alias.name}" for node in froms for alias in node.names}


def below(names: set[str], *packages: str) -> set[str]:
    return {name for name in names if name.startswith(tuple(f"{package}." for package in packages)) or name in packages}


def test_callbacks_and_datamodules_never_import_the_zoo():
    files = [*modules_below("callbacks"), *modules_below("datamodules")]
    assert {path.name: found for path in files if (found := below(imported(path), "zoo"))} == {}
    assert len(files) > 10


def test_parts_import_nothing_of_the_zoo_but_parts():
    for path in modules_below("zoo/parts"):
        assert below(imported(path), "zoo") == below(imported(path), "zoo.parts"), path
        assert not below(imported(path), "callbacks", "datamodules", "experiments", "lightning"), path


def test_systems_import_parts_and_the_base_of_their_shelf_but_no_other_system():
    shelves = [
        folder for folder in (ROOT / "zoo").iterdir() if folder.is_dir() and folder.name not in ("parts", "analysis")
    ]
    for path in {path for shelf in shelves for path in shelf.rglob("*.py")} - TOOLS:
        allowed = below(imported(path), "zoo.parts", "zoo.system", *BASES, "datamodules.batches")
        assert below(imported(path), "zoo", "callbacks", "datamodules", "experiments") == allowed, path


@pytest.mark.parametrize("package", ["zoo", "datamodules", "callbacks", "experiments"])
def test_the_package_with_the_generic_name_is_ours(package):
    assert Path(importlib.import_module(package).__file__).resolve().parent == ROOT / package
