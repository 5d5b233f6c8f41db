"""The galleries of classifiers: what they show is right, and they leave everything as they found it."""

import gc
import itertools
import logging
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning import Callback, LightningModule
from lightning.pytorch.loggers import WandbLogger
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from callbacks.figures.callback import untouched
from callbacks.galleries import gradcam
from callbacks.galleries.base import Gallery
from callbacks.galleries.classified import ClassifierGallery
from callbacks.galleries.gradcam import GradCAMGallery
from callbacks.galleries.misclassified import MisclassifiedGallery
from callbacks.monitors.curves import Curves
from helpers import Synthetic
from zoo.classification.resnet_mini import ResNetMini

SIZE = 12  # of the images; the stem halves it


def small_net(**options) -> ResNetMini:
    torch.manual_seed(0)
    return ResNetMini(3, widths=(4, 8), strides=(1, 1), **options)


def small_data(**options) -> Synthetic:
    return Synthetic(image_shape=(1, SIZE, SIZE), num_classes=3, batch_size=8, **({"eval_batch_size": 5} | options))


def every_loss(module: LightningModule, data: Synthetic, split: str = "test") -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All images (normalized), labels, predictions and losses of a split, in one batch."""
    data.setup("test")
    image, label = data.normalize(data.datasets[split].images.float() / 255), data.datasets[split].labels
    with torch.no_grad():
        logits = module.eval()(image)
    return image, label, logits.argmax(1), F.cross_entropy(logits, label, reduction="none")


# Nothing is disturbed


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
    """Puts the module into a condition that is not restored by chance."""

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
    module, data = small_net(), small_data(sizes=(8, 5, 5))
    runner = trainer(MisclassifiedGallery(1), GradCAMGallery(1))

    def alive_after(calls: int) -> tuple[int, int, int]:
        for _ in range(calls):
            runner.validate(module, data, verbose=False)
        gc.collect()
        tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor)]
        return len(tensors), sum(t.nbytes for t in tensors), sum(issubclass(type(t), Figure) for t in gc.get_objects())

    assert alive_after(2) == alive_after(8)


def test_what_is_kept_does_not_hold_its_batch(trainer):
    gallery = MisclassifiedGallery(4)
    trainer(gallery).test(small_net(), small_data(), verbose=False)
    assert len(gallery.shown) == 4
    for entry in gallery.shown:
        assert entry.item.image.untyped_storage().nbytes() == 4 * SIZE * SIZE


# What the figures show


def test_files_are_real_images(trainer, tmp_path):
    module, data = small_net(), small_data()
    runner = trainer(MisclassifiedGallery(7), GradCAMGallery(7), Curves())
    runner.fit(module, data)
    runner.test(module, data, verbose=False)
    names = {f"{what}_{split}.png" for what in ("misclassified", "gradcam") for split in ("val", "test")}
    files = list((tmp_path / "pictures").iterdir())
    assert {file.name for file in files} == {*names, "curves.png"}
    for file in files:
        image = Image.open(file).convert("RGB")
        assert 1400 <= image.width <= 1600, file.name
        assert np.asarray(image).std() > 20, file.name
        assert file.stat().st_size < 300_000, file.name


@pytest.mark.parametrize("n", [1, 4, 7, 30])
def test_galleries_are_legible(trainer, published, texts_of, assert_legible, n):
    data = small_data()
    data.classes = ("T-shirt/top", "ankle boot", "German short-haired pointer dog")
    trainer(MisclassifiedGallery(n), GradCAMGallery(n)).test(small_net(), data, verbose=False)
    assert [figure.name for figure in published] == ["misclassified_test", "gradcam_test"]
    for _, figure, _ in published:
        assert_legible(figure)
    texts = " ".join(texts_of(published[1].figure))
    assert "Where the evidence lies: GradCAM at stages.1, 6x6" in texts
    assert "relevance, 0 to 1" in texts


def test_the_worst_are_the_worst(trainer, published, texts_of):
    module, data, gallery = small_net(), small_data(), MisclassifiedGallery(6)
    trainer(gallery).test(module, data, verbose=False)
    image, label, prediction, loss = every_loss(module, data)
    wrong = (prediction != label).nonzero().flatten().tolist()
    worst = sorted(wrong, key=lambda i: -loss[i])[:6]
    assert [entry.index for entry in gallery.shown] == worst
    assert (gallery.mistakes, gallery.seen) == (len(wrong), len(label))
    for entry, i in zip(gallery.shown, worst, strict=True):
        item = entry.item
        torch.testing.assert_close(item.image, image[i])
        assert (item.truth, item.prediction) == (label[i], prediction[i])
        assert (entry.rank_key, entry.wrong, entry.group) == (item.loss, True, item.truth)
        assert item.loss == pytest.approx(float(loss[i]), rel=1e-4)
        assert 1 / 3 <= item.confidence <= 1
    texts = texts_of(published[0].figure)
    assert f"→ {gallery.shown[0].item.prediction}" in texts
    assert any(text.startswith(f"{len(wrong)} of {len(label)} images wrong") for text in texts)


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
    assert [entry.index for entry in gallery.shown] == expected[:7]
    worst = (prediction != label).nonzero().flatten()[loss[prediction != label].argsort(descending=True)][:7]
    assert expected[:7] != worst.tolist(), "the orders agree by chance: the test shows nothing"


class Oracle(LightningModule):
    """Is always right, in growing measure of the brightness, which its net finds."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(3 * SIZE**2, 3))
        self.cam_target = self.net[1]

    def test_step(self, batch, batch_idx):
        return {"logits": batch[0].mean((1, 2, 3))[:, None].add(4) * F.one_hot(batch[1], 3)}


def test_no_mistakes(trainer, published, texts_of, assert_legible, tmp_path):
    gallery = MisclassifiedGallery()
    trainer(gallery).test(Oracle(), small_data(), verbose=False)
    assert (gallery.shown, gallery.mistakes, gallery.seen) == ([], 0, 17)
    assert_legible(published[0].figure)
    assert "No mistakes among 17 test images" in texts_of(published[0].figure)
    assert np.asarray(Image.open(tmp_path / "pictures" / "misclassified_test.png")).std() > 5


class Plain(LightningModule):
    """A user's own module, without a base class of the zoo."""

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
    assert [figure.name for figure in published] == ["misclassified_val", "gradcam_val", "curves"]
    assert (gallery.seen, len(gallery.shown)) == (20, 3)
    assert list(curves.history) == ["val/loss"]


def test_only_the_first_validation_loader_counts(trainer):
    gallery = MisclassifiedGallery()
    trainer(gallery, num_sanity_val_steps=1).fit(small_net(), small_data(watch_test=True))
    assert (gallery.split, gallery.seen) == ("val", 21)


def test_galleries_draw_every_n_epochs_and_at_the_end(trainer, published):
    trainer(MisclassifiedGallery(2, every_n_epochs=2), max_epochs=5).fit(small_net(), small_data())
    assert len(published) == 3  # after epochs 2 and 4, and at the end
    published.clear()
    trainer(MisclassifiedGallery(2), max_epochs=3).fit(small_net(), small_data())
    assert len(published) == 1


def test_steps_without_logits_are_an_error_before_training(trainer):
    class Silent(Plain):
        def validation_step(self, batch, batch_idx):
            return self.net(batch[0]).sum()

    runner = trainer(MisclassifiedGallery())
    with pytest.raises(ValueError, match=r"found no logits .* expected a dict .* return that"):
        runner.fit(Silent(), plain_loader(), plain_loader())
    assert runner.global_step == 0


def test_mixed_labels_count_as_their_largest_share():
    logits = torch.tensor([[3.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
    label = torch.tensor([[0.6, 0.4, 0.0], [0.3, 0.0, 0.7]])
    batch = torch.zeros(2, 1, 4, 4), label
    right, wrong = MisclassifiedGallery().entries({"logits": logits}, batch, itertools.count())
    assert (right.item.truth, right.item.prediction, right.wrong, right.index) == (0, 0, False, 0)
    assert (wrong.item.truth, wrong.item.prediction, wrong.wrong, wrong.index) == (2, 0, True, 1)
    expected = F.cross_entropy(logits, label, reduction="none").tolist()
    assert [right.rank_key, wrong.rank_key] == pytest.approx(expected)


def test_a_gallery_defines_what_it_shows_and_how():
    for base, missing in ((Gallery, "draw.*entries"), (ClassifierGallery, "draw")):
        with pytest.raises(TypeError, match=missing):
            base()
    with pytest.raises(ValueError, match="n is 0"):
        MisclassifiedGallery(0)
    with pytest.raises(ValueError, match=r"order 'first': .* worst, spread"):
        MisclassifiedGallery(order="first")


# Grad-CAM


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
    results, relevance = [], gradcam.relevance

    def recording(*arguments):
        results.append(relevance(*arguments))
        return results[-1]

    monkeypatch.setattr(gradcam, "relevance", recording)
    module, gallery = small_net(), GradCAMGallery(5, target=target)
    trainer(gallery).test(module, small_data(), verbose=False)  # in inference mode
    maps, layer, size = results[-1]
    assert (layer, size) == ("stages.1", (6, 6))
    assert maps.shape == (5, SIZE, SIZE)
    for entry, found in zip(gallery.shown, maps, strict=True):
        expected = grad_cam_by_hand(module, entry.item.image[None].clone(), getattr(entry.item, target))
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
    assert [entry.index for entry in cams.shown] == list(range(6))


@pytest.mark.parametrize("with_other", [False, True])
def test_without_mistakes_the_least_sure_are_shown(trainer, published, texts_of, assert_legible, with_other):
    data, cams = small_data(), GradCAMGallery(3)
    others = [MisclassifiedGallery(2)] if with_other else []
    trainer(*others, cams).test(Oracle(), data, verbose=False)
    image = data.normalize(data.datasets["test"].images.float() / 255)
    assert [entry.index for entry in cams.shown] == image.mean((1, 2, 3)).argsort()[:3].tolist()
    figure = published[-1]
    assert figure.name == "gradcam_test"
    assert_legible(figure.figure)
    assert "Evidence for the prediction, no mistakes: the least sure of the test set" in texts_of(figure.figure)


def test_a_map_without_evidence_says_so(trainer, published, texts_of, assert_legible):
    module = Oracle()
    module.net[3].weight.data.abs_().neg_()  # everything speaks against every class
    trainer(GradCAMGallery(2)).test(module, small_data(), verbose=False)
    assert texts_of(published[0].figure).count("none found") == 2
    assert_legible(published[0].figure)


def test_road_is_told_when_asked_for(trainer, published, texts_of, assert_legible):
    trainer(GradCAMGallery(2, road=True)).test(small_net(), small_data(), verbose=False)
    ((_, figure, (columns, rows)),) = published
    scores = [row[columns.index("ROAD")] for row in rows]
    assert f"ROAD {sum(scores) / 2:.3f}" in " ".join(texts_of(figure))
    assert_legible(figure)


def test_frozen_nets_have_maps(trainer, published):
    module = small_net()
    module.requires_grad_(False)
    trainer(GradCAMGallery(2)).test(module, small_data(), verbose=False)
    assert published[0].name == "gradcam_test"


class WithoutNet(Plain):
    """Keeps its layers under another name."""

    def __init__(self):
        super().__init__()
        self.layers, self.net = self.net, None

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.layers(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        return {"logits": self.layers(batch[0])}


class UnusedTarget(Plain):
    def __init__(self):
        super().__init__(cam=False)
        self.cam_target = nn.ReLU()


def coarse(strides: tuple[int, int] = (2, 1)) -> ResNetMini:
    """A net whose maps have 4x4 pixels, for images of 16x16."""
    return ResNetMini(3, widths=(4, 8), strides=strides)  # 16 -> 8 -> 4 -> 4


def coarse_loader() -> DataLoader:
    """Data that do not know the size of their images."""
    return DataLoader(TensorDataset(torch.randn(20, 1, 16, 16), torch.arange(20) % 3), batch_size=6)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            lambda: (coarse(), Synthetic(image_shape=(1, 16, 16), num_classes=3, batch_size=8)),
            "stages.1 of ResNetMini gives maps of (1, 8, 4, 4): expected (B, D, H, W)",
        ),
        (
            lambda: (coarse(), coarse_loader()),
            "with H and W of 5 or more; choose an earlier layer as `cam_target`",
        ),
        (
            lambda: (Plain(cam=False), plain_loader()),
            "Plain does not say which layer to use: expected an attribute or property `cam_target`",
        ),
        (
            lambda: (WithoutNet(), plain_loader()),
            "`cam_target`, a module inside `self.net`; add it, or leave out GradCAMGallery",
        ),
        (
            lambda: (UnusedTarget(), plain_loader()),
            "ReLU of UnusedTarget did not run: expected a layer that the net runs",
        ),
    ],
    ids=["coarse maps", "coarse maps, found at the first batch", "no target", "no net", "a target that never runs"],
)
@pytest.mark.parametrize("of", ["mistakes", "first"])
def test_without_usable_maps_training_goes_on_and_one_line_says_why(trainer, published, caplog, make, reason, of):
    torch.manual_seed(0)
    module, data = make()
    mistakes, cams = MisclassifiedGallery(2), GradCAMGallery(2, of=of)
    runner, before = trainer(mistakes, cams, max_epochs=2), [p.clone() for p in module.parameters()]
    with caplog.at_level(logging.INFO):
        runner.fit(module, data, None if isinstance(data, Synthetic) else data)
    found = [message for message in caplog.messages if "GradCAM" in message]
    assert found == [f"GradCAMGallery draws nothing: {cams.unavailable}"]
    assert reason in cams.unavailable
    assert runner.current_epoch == 2
    assert not all(torch.equal(p, kept) for p, kept in zip(module.parameters(), before, strict=True))
    assert [figure.name for figure in published] == ["misclassified_val"]
    assert mistakes.seen > 0


def test_a_failed_trial_leaves_the_module_as_it_was():
    module = coarse()
    module.net.stem.eval()
    before = condition(module)
    with pytest.raises(ValueError, match="choose an earlier layer") as refusal:
        gradcam.relevance(module, torch.zeros(1, 1, 16, 16), [0])
    assert condition(module) == before, refusal  # while the traceback still holds what was made


def test_of_small_images_the_maps_of_the_stage_before_are_drawn(trainer, published, texts_of):
    """16 -> 8 -> 8 -> 4: the maps of the first stage are large enough, those of the last one are not."""
    cams = GradCAMGallery(2, of="first")
    trainer(cams).fit(coarse(strides=(1, 2)), Synthetic(image_shape=(1, 16, 16), num_classes=3, batch_size=8))
    assert cams.unavailable is None
    (figure,) = published
    assert "Where the evidence lies: GradCAM at stages.0, 8x8" in texts_of(figure.figure)


def test_the_next_run_tries_again(trainer, published, caplog):
    cams = GradCAMGallery(2)
    with caplog.at_level(logging.INFO):
        trainer(cams).validate(Plain(cam=False), plain_loader(), verbose=False)
    assert f"GradCAMGallery draws nothing: {cams.unavailable}" in caplog.messages
    trainer(cams).validate(Plain(), plain_loader(), verbose=False)
    assert cams.unavailable is None
    assert [figure.name for figure in published] == ["gradcam_val"]


def test_gradcam_refuses_unknown_arguments():
    with pytest.raises(ValueError, match=r"'GradCam' is unknown .* GradCAM, .*LayerCAM"):
        GradCAMGallery(method="GradCam")
    with pytest.raises(ValueError, match=r"'all' is unknown .* mistakes, first"):
        GradCAMGallery(of="all")
    with pytest.raises(ValueError, match=r"'both' is unknown .* prediction, truth"):
        GradCAMGallery(target="both")


# Loggers


def test_wandb_gets_figures_and_tables(trainer, tmp_path, monkeypatch):
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
