"""The callbacks that draw: what they show is right, and they leave everything as they found it."""

import gc
import itertools
import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning import Callback, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from matplotlib.axis import Tick, XTick
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from callbacks.figures.callback import FigureCallback, untouched
from callbacks.galleries.gradcam import METHODS, GradCAMGallery
from callbacks.galleries.misclassified import MisclassifiedGallery
from callbacks.monitors.curves import Curves, draw
from helpers import Synthetic, quiet_trainer
from zoo.classification.resnet_mini import ResNetMini

SIZE = 12  # of the images; the stem halves it


def small_net(**options) -> ResNetMini:
    torch.manual_seed(0)
    return ResNetMini(3, widths=(4, 8), strides=(1, 1), **options)


def small_data(**options) -> Synthetic:
    return Synthetic(image_shape=(1, SIZE, SIZE), num_classes=3, batch_size=8, **({"eval_batch_size": 5} | options))


@pytest.fixture
def trainer(tmp_path):
    def build(*callbacks: Callback, **options):
        return quiet_trainer(callbacks=list(callbacks), default_root_dir=tmp_path, **({"max_epochs": 1} | options))

    return build


@pytest.fixture
def published(monkeypatch) -> list[tuple[str, Figure]]:
    """The figures that were published, by name."""
    figures, publish = [], FigureCallback.publish

    def noting(self, trainer, name, figure, table=None):
        figures.append((name, figure))
        return publish(self, trainer, name, figure, table)

    monkeypatch.setattr(FigureCallback, "publish", noting)
    return figures


def every_loss(module: LightningModule, data: Synthetic, split: str = "test") -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All images (normalised), labels, predictions and losses of a split, at once."""
    data.setup("test")
    image, label = data.normalize(data.datasets[split].images.float() / 255), data.datasets[split].labels
    with torch.no_grad():
        logits = module.eval()(image)
    return image, label, logits.argmax(1), F.cross_entropy(logits, label, reduction="none")


# ------------------------------------------------------------------------------------------------- nothing is disturbed


def condition(module: nn.Module) -> dict[str, list]:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "modes": [child.training for child in module.modules()],
        "which gradients": [id(p.grad) if p.grad is not None else None for p in module.parameters()],
        "gradients": [p.grad.tolist() for p in module.parameters() if p.grad is not None],
        "requires_grad": [p.requires_grad for p in module.parameters()],
        "weights and buffers": [tensor.tolist() for tensor in module.state_dict().values()],
        "hooks": [len(getattr(child, name)) for child in module.modules() for name in hooks],
        "torch": torch.get_rng_state().tolist(),
        "numpy": [repr(part) for part in np.random.get_state()],  # noqa: NPY002
        "python": list(random.getstate()),
    }


def guarded(hook, checked: set[str]):
    """The hook, comparing the condition of the module before and after."""

    def compare(trainer, module, *args, **kwargs):
        before = condition(module)
        hook(trainer, module, *args, **kwargs)
        after = condition(module)
        for what in before:
            assert after[what] == before[what], f"{hook.__qualname__} changed {what}"
        if before["gradients"]:
            checked.add(hook.__name__)

    return compare


class Odd(Callback):
    """Puts the module into a condition that nobody would restore by chance."""

    def on_test_start(self, trainer, module):
        for parameter in module.parameters():
            parameter.grad = torch.randn(parameter.shape)
        module.net.stem.train()
        module.net.head[-1].bias.requires_grad_(False)

    on_validation_end = on_test_start


@pytest.mark.parametrize(
    "make",
    [
        lambda: MisclassifiedGallery(3, every_n_epochs=1),
        lambda: GradCAMGallery(3, every_n_epochs=1),
        lambda: GradCAMGallery(3, "RandomCAM", of="first"),  # draws random numbers
        lambda: GradCAMGallery(3, "AblationCAM", target="truth"),  # puts another layer in place of the target
        lambda: Curves(every_n_epochs=1),
    ],
    ids=["misclassified", "GradCAM", "RandomCAM", "AblationCAM", "curves"],
)
def test_everything_is_left_as_it_was(trainer, tmp_path, make):
    checked, callback, module, data = set(), make(), small_net(), small_data()
    for hook in filter(lambda name: name.startswith("on_"), dir(Callback)):
        setattr(callback, hook, guarded(getattr(callback, hook), checked))
    runner = trainer(Odd(), callback)
    runner.fit(module, data)
    runner.test(module, data, verbose=False)
    assert list((tmp_path / "pictures").glob("*.png"))
    assert len(checked & {"on_validation_end", "on_train_end", "_finish"}) >= 1, "no drawing hook met a gradient"


def test_untouched_restores_after_an_error_too():
    module = small_net()
    module.net.stem.eval()
    module.net.head[-1].weight.requires_grad_(False)
    module(torch.randn(2, 1, SIZE, SIZE)).sum().backward()
    before = condition(module)
    with pytest.raises(KeyError), untouched(module):  # noqa: PT012 (it is what happens inside that must be undone)
        module.eval().requires_grad_(True)
        module(torch.randn(2, 1, SIZE, SIZE)).sum().backward()
        random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002
        raise KeyError
    assert condition(module) == before


def test_memory_is_flat(trainer):
    module, data = small_net(), small_data()
    runner = trainer(MisclassifiedGallery(1), GradCAMGallery(1))

    def alive_after(calls: int) -> tuple[int, int, int]:
        for _ in range(calls):
            runner.validate(module, data, verbose=False)
        gc.collect()
        tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor)]
        return len(tensors), sum(t.nbytes for t in tensors), sum(issubclass(type(t), Figure) for t in gc.get_objects())

    assert alive_after(3) == alive_after(47)


def test_what_is_kept_does_not_hold_its_batch(trainer):
    gallery = MisclassifiedGallery(4)
    trainer(gallery).test(small_net(), small_data(), verbose=False)
    assert len(gallery.shown) == 4
    for sample in gallery.shown:
        assert sample.image.untyped_storage().nbytes() == 4 * SIZE * SIZE


# ----------------------------------------------------------------------------------------------- what the pictures show


def test_files_are_real_pictures(trainer, tmp_path):
    module, data = small_net(), small_data()
    runner = trainer(MisclassifiedGallery(7), GradCAMGallery(7), Curves())
    runner.fit(module, data)
    runner.test(module, data, verbose=False)
    names = {f"{what}_{split}.png" for what in ("misclassified", "gradcam") for split in ("val", "test")}
    files = list((tmp_path / "pictures").iterdir())
    assert {file.name for file in files} == {*names, "curves.png"}
    for file in files:
        picture = Image.open(file).convert("RGB")
        assert 1400 <= picture.width <= 1600, file.name
        assert np.asarray(picture).std() > 20, file.name
        assert file.stat().st_size < 300_000, file.name


def texts_of(figure: Figure) -> list[Text]:
    """All that are drawn: without the ticks that matplotlib keeps beyond the limits."""
    beyond = set()
    for tick in figure.findobj(Tick):
        low, high = tick.axes.get_xlim() if isinstance(tick, XTick) else tick.axes.get_ylim()
        if not low <= tick.get_loc() <= high:
            beyond |= {tick.label1, tick.label2}
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in beyond]


def assert_legible(figure: Figure) -> None:
    """No text runs into another or over the edge."""
    FigureCanvasAgg(figure).draw()
    boxes = [(text.get_text(), Text.get_window_extent(text)) for text in texts_of(figure)]  # without arrows
    for text, box in boxes:
        assert min(box.x0, box.y0) >= 0, text
        assert (box.p1 <= figure.bbox.p1).all(), text
    for (text, box), (other, other_box) in itertools.combinations(boxes, 2):
        wide = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
        high = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
        assert wide <= 1 or high <= 1, f"{text!r} runs into {other!r}"


@pytest.mark.parametrize("n", [1, 4, 7, 30])
def test_galleries_are_legible(trainer, published, n):
    data = small_data()
    data.classes = ("T-shirt/top", "ankle boot", "German short-haired pointer dog")
    trainer(MisclassifiedGallery(n), GradCAMGallery(n)).test(small_net(), data, verbose=False)
    assert [name for name, _ in published] == ["misclassified_test", "gradcam_test"]
    for _, figure in published:
        assert_legible(figure)
    said = " ".join(text.get_text() for text in texts_of(published[1][1]))
    assert "GradCAM at stages.1, 6x6" in said
    assert "relevance, 0 to 1" in said


def test_the_worst_are_the_worst(trainer, published):
    module, data, gallery = small_net(), small_data(), MisclassifiedGallery(6)
    trainer(gallery).test(module, data, verbose=False)
    image, label, prediction, loss = every_loss(module, data)
    wrong = (prediction != label).nonzero().flatten().tolist()
    worst = sorted(wrong, key=lambda i: -loss[i])[:6]
    assert [sample.index for sample in gallery.shown] == worst
    assert (gallery.mistakes, gallery.seen) == (len(wrong), len(label))
    for sample, i in zip(gallery.shown, worst, strict=True):
        torch.testing.assert_close(sample.image, image[i])
        assert (sample.truth, sample.prediction) == (label[i], prediction[i])
        assert sample.loss == pytest.approx(float(loss[i]), rel=1e-4)
        assert 1 / 3 <= sample.confidence <= 1
    said = [text.get_text() for text in texts_of(published[0][1])]
    assert f"→ {gallery.shown[0].prediction}" in said
    assert any(text.startswith(f"{len(wrong)} of {len(label)} images wrong") for text in said)


def test_spread_takes_the_classes_in_turn(trainer):
    module, data, gallery = small_net(), small_data(sizes=(40, 21, 90)), MisclassifiedGallery(7, order="spread")
    trainer(gallery).test(module, data, verbose=False)
    _, label, prediction, loss = every_loss(module, data)
    by_class = [
        sorted((i for i in range(90) if label[i] == c != prediction[i]), key=lambda i: -loss[i]) for c in range(3)
    ]
    expected = []
    for turn in itertools.zip_longest(*by_class):
        expected += sorted((i for i in turn if i is not None), key=lambda i: -loss[i])
    assert [sample.index for sample in gallery.shown] == expected[:7]
    worst = (prediction != label).nonzero().flatten()[loss[prediction != label].argsort(descending=True)][:7]
    assert expected[:7] != worst.tolist(), "the orders agree by chance: the test shows nothing"


class Oracle(LightningModule):
    """Returns logits that are always right."""

    def test_step(self, batch, batch_idx):
        return {"logits": 9.0 * F.one_hot(batch[1], 3).float()}


def test_no_mistakes(trainer, published, tmp_path):
    gallery = MisclassifiedGallery()
    trainer(gallery).test(Oracle(), small_data(), verbose=False)
    assert (gallery.shown, gallery.mistakes, gallery.seen) == ([], 0, 17)
    assert_legible(published[0][1])
    assert "No mistakes among 17 test images" in [text.get_text() for text in texts_of(published[0][1])]
    assert np.asarray(Image.open(tmp_path / "pictures" / "misclassified_test.png")).std() > 5


class Plain(LightningModule):
    """A user's own module, of no base class of ours."""

    def __init__(self, cam: bool = True):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * SIZE**2, 3))
        if cam:
            self.cam_target = self.net[1]

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        logits = self.net(batch[0])
        self.log("val/loss", F.cross_entropy(logits, batch[1]))
        return {"logits": logits}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def plain_loader() -> DataLoader:
    return DataLoader(TensorDataset(torch.randn(20, 2, SIZE, SIZE), torch.arange(20) % 3), batch_size=6)


def test_plain_loaders_and_modules(trainer, published):
    gallery, curves = MisclassifiedGallery(3), Curves()
    trainer(gallery, GradCAMGallery(3, of="first"), curves).fit(Plain(), plain_loader(), plain_loader())
    assert [name for name, _ in published] == ["misclassified_val", "gradcam_val", "curves"]
    assert (gallery.seen, len(gallery.shown)) == (20, 3)
    assert list(curves.history) == ["val/loss"]


def test_only_the_first_validation_loader_counts(trainer):
    gallery = MisclassifiedGallery()
    trainer(gallery, num_sanity_val_steps=1).fit(small_net(), small_data(watch_test=True))
    assert (gallery.split, gallery.seen) == ("val", 21)


def test_galleries_draw_when_asked(trainer, published):
    trainer(MisclassifiedGallery(2, every_n_epochs=2), max_epochs=5).fit(small_net(), small_data())
    assert len(published) == 3  # after epochs 2 and 4, and at the end
    published.clear()
    trainer(MisclassifiedGallery(2), max_epochs=3).fit(small_net(), small_data())
    assert len(published) == 1


def test_logits_are_asked_for_before_training(trainer):
    class Silent(Plain):
        def validation_step(self, batch, batch_idx):
            return self.net(batch[0]).sum()

    runner = trainer(MisclassifiedGallery())
    with pytest.raises(ValueError, match=r"found no logits .* expected a dict .* return that"):
        runner.fit(Silent(), plain_loader(), plain_loader())
    assert runner.global_step == 0


# ------------------------------------------------------------------------------------------------------------- Grad-CAM


def grad_cam_by_hand(module: ResNetMini, image: Tensor, label: int) -> Tensor:
    """Selvaraju et al. 2017, equations 1 and 2, of one image (1, C, H, W), stretched to 0..1 and to its size."""
    module.eval()
    maps = module.net.stages(module.net.stem(image)).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(module.net.head(maps)[0, label], maps)
    cam = (gradient.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu()
    cam = (cam - cam.min()) / cam.max()
    cam = F.interpolate(cam, image.shape[2:], mode="bilinear")[0, 0]
    return ((cam - cam.min()) / (cam.max() - cam.min())).detach()


@pytest.mark.parametrize("target", ["prediction", "truth"])
def test_maps_equal_grad_cam_by_hand(trainer, monkeypatch, target):
    results, relevance = [], GradCAMGallery.relevance

    def noting(self, module, images, classes):
        results.append(relevance(self, module, images, classes))
        return results[-1]

    monkeypatch.setattr(GradCAMGallery, "relevance", noting)
    module, gallery = small_net(), GradCAMGallery(5, target=target)
    trainer(gallery).test(module, small_data(), verbose=False)  # in inference mode
    maps, where = results[-1]
    assert where == "stages.1, 6x6"
    assert maps.shape == (5, SIZE, SIZE)
    for sample, found in zip(gallery.shown, maps, strict=True):
        expected = grad_cam_by_hand(module, sample.image[None].clone(), getattr(sample, target))
        torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-4, rtol=1e-3)
    assert maps.std() > 0.1


def test_gradcam_shows_the_images_of_the_other_gallery(trainer):
    for before in (True, False):
        mistakes, cams = MisclassifiedGallery(4, order="spread"), GradCAMGallery(10)
        trainer(*((cams, mistakes) if before else (mistakes, cams))).test(small_net(), small_data(), verbose=False)
        assert len(cams.shown) == 4
        assert cams.shown == mistakes.shown


def test_gradcam_of_the_first(trainer):
    cams = GradCAMGallery(6, of="first")
    trainer(MisclassifiedGallery(2), cams).test(small_net(), small_data(), verbose=False)
    assert [sample.index for sample in cams.shown] == list(range(6))


def test_frozen_nets_have_maps(trainer, published):
    module = small_net()
    module.requires_grad_(False)
    trainer(GradCAMGallery(2)).test(module, small_data(), verbose=False)
    assert published[0][0] == "gradcam_test"


def test_coarse_maps_are_refused_before_training(trainer):
    data = Synthetic(image_shape=(1, 16, 16), num_classes=3)
    module = ResNetMini(3, widths=(4, 8), strides=(1, 2))  # 16 -> 8 -> 8 -> 4
    runner, before = trainer(GradCAMGallery()), condition(module)
    message = r"stages\.1 .*4, 4\).* 5 or more; choose an earlier layer as `cam_target`"
    with pytest.raises(ValueError, match=message) as refusal:
        runner.fit(module, data)
    assert runner.global_step == 0
    assert condition(module) == before, refusal  # while the traceback still holds what was made
    with pytest.raises(ValueError, match="choose an earlier layer"):
        trainer(GradCAMGallery()).test(module, data)


def test_gradcam_needs_a_target_and_a_known_method(trainer):
    runner = trainer(GradCAMGallery())
    with pytest.raises(ValueError, match=r"Plain doesn't say which layer .* `cam_target`"):
        runner.fit(Plain(cam=False), plain_loader(), plain_loader())
    assert runner.global_step == 0
    with pytest.raises(ValueError, match=r"'GradCam' is unknown .* GradCAM, .*LayerCAM"):
        GradCAMGallery(method="GradCam")
    assert {"GradCAM", "GradCAMPlusPlus", "HiResCAM", "EigenCAM", "LayerCAM", "XGradCAM", "ScoreCAM"} <= {*METHODS}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_maps(method):
    images = torch.randn(2, 1, SIZE, SIZE)
    maps, _ = GradCAMGallery(method=method).relevance(small_net(), images, [0, 1])
    assert maps.shape == (2, SIZE, SIZE)
    assert 0 <= maps.min() < maps.max() <= 1 + 1e-6


# --------------------------------------------------------------------------------------------------------------- curves


class Notes(Callback):
    """Writes down what Lightning hands to loggers at the end of each epoch, when all of it is there."""

    def __init__(self):
        self.notes = []

    def on_train_epoch_start(self, trainer, module):
        self.on_train_end(trainer, module)

    def on_train_end(self, trainer, module):
        self.notes.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def test_curves_keep_every_epoch(trainer, published):
    curves, notes = Curves(), Notes()
    trainer(curves, notes, max_epochs=4, check_val_every_n_epoch=2).fit(small_net(), small_data(watch_test=True))
    for split, epochs in (("train", (1, 2, 3, 4)), ("val", (2, 4)), ("test", (2, 4))):
        for metric in ("loss", "acc"):
            name = f"{split}/{metric}"
            assert curves.history[name] == pytest.approx({epoch: notes.notes[epoch][name] for epoch in epochs})
    assert [name for name, _ in published] == ["curves"]
    said = [text.get_text() for text in texts_of(published[0][1])]
    assert f"validation {100 * curves.history['val/acc'][4]:.2f} %" in said


@pytest.mark.parametrize(
    ("values", "best"), [((0.5, 0.75, 0.625), "best: epoch 2, 75.00 %"), ((0.5, 0.625, 0.75), None)]
)
def test_the_best_epoch_is_marked_unless_it_is_the_last(values, best):
    said = [text.get_text() for text in texts_of(draw({"val/acc": dict(enumerate(values, 1))}))]
    assert [text for text in said if text.startswith("best")] == ([best] if best else [])
    assert f"validation {100 * values[-1]:.2f} %" in said


def test_curves_go_on_after_a_resume(trainer, tmp_path):
    keep = ModelCheckpoint(tmp_path, save_last=True)
    whole = Curves()
    trainer(whole, keep, max_epochs=2, enable_checkpointing=True).fit(small_net(), small_data())
    resumed = Curves()
    trainer(resumed, max_epochs=3).fit(small_net(), small_data(), ckpt_path=tmp_path / "last.ckpt")
    assert set(resumed.history["train/loss"]) == set(resumed.history["val/acc"]) == {1, 2, 3}
    for name, values in whole.history.items():
        assert values.items() <= resumed.history[name].items()
    trainer(resumed, max_epochs=1).fit(small_net(), small_data())
    assert set(resumed.history["train/loss"]) == {1}, "another training starts anew"


def test_curves_are_drawn_when_training_breaks(trainer, published):
    class Break(Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.current_epoch == 2:
                raise RuntimeError("broken")

    curves = Curves()
    with pytest.raises(RuntimeError, match="broken"):
        trainer(curves, Break(), max_epochs=5).fit(small_net(), small_data())
    assert [name for name, _ in published] == ["curves"]
    assert set(curves.history["train/loss"]) == {1, 2}


def test_curves_without_validation(trainer, published):
    trainer(Curves(every_n_epochs=1), max_epochs=2).fit(small_net(), small_data(sizes=(40, 0, 17)))
    assert len(published) == 3
    said = " ".join(text.get_text() for text in texts_of(published[-1][1]))
    assert "train" in said
    assert "validation" not in said


@pytest.mark.parametrize("gap", [0.0, 1e-4, 0.3])
@pytest.mark.parametrize("epochs", [1, 2, 40])
def test_curves_are_legible(gap, epochs):
    course = {epoch: 0.9 / epoch + 0.05 for epoch in range(1, epochs + 1)}
    history = {}
    for i, split in enumerate(("train", "val", "test")):
        history[f"{split}/loss"] = {epoch: value + i * gap for epoch, value in course.items()}
        history[f"{split}/acc"] = {epoch: 0.99 - 0.5 * value - i * gap for epoch, value in course.items()}
    figure = draw(history)
    assert len(figure.axes) == 2
    assert_legible(figure)
    only_loss = draw({"val/loss": course})
    assert len(only_loss.axes) == 1
    assert_legible(only_loss)


@pytest.mark.parametrize(
    ("course", "scale"),
    [((0.1, 0.9, 0.99, 0.995), "function"), ((0.8, 0.9, 0.95, 0.94), "linear"), ((0.1, 0.9, 1.0, 1.0), "linear")],
    ids=["poor first epochs", "steady", "no errors left"],
)
def test_poor_first_epochs_press_no_accuracy_flat(course, scale):
    figure = draw({"val/acc": dict(enumerate(course, 1))})
    (axes,) = figure.axes
    assert axes.get_yscale() == scale
    heights = [axes.transData.transform((1, 100 * value))[1] for value in course]
    share = (heights[3] - heights[2]) / (heights[2] - heights[0])
    if scale == "function":
        assert share == pytest.approx(math.log(2) / math.log(90)), "halving the errors is the same step anywhere"
    else:
        assert share == pytest.approx((course[3] - course[2]) / (course[2] - course[0]))
    assert_legible(figure)


def test_a_loss_that_diverged_is_told():
    figure = draw({"train/loss": {1: 2.0, 2: 3.0, 3: float("nan")}})
    assert "train nan" in [text.get_text() for text in texts_of(figure)]


# -------------------------------------------------------------------------------------------------------------- loggers


def test_wandb_gets_pictures_and_tables(trainer, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "wandb-data"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(offline=True, save_dir=tmp_path)
    try:
        trainer(MisclassifiedGallery(2), GradCAMGallery(2), logger=logger).test(
            small_net(), small_data(), verbose=False
        )
    finally:
        logger.experiment.finish()
    media = {file.name for file in tmp_path.glob("wandb/offline-run-*/files/media/**/*") if file.is_file()}
    for name in ("misclassified_test", "gradcam_test"):
        assert any(file.startswith(f"{name}_") and file.endswith(".png") for file in media)
        assert any(file.startswith(f"{name}_table") and file.endswith(".table.json") for file in media)
        assert (tmp_path / "pictures" / f"{name}.png").exists()
