"""Pixel optimization: image optimization, content reconstruction, style transfer; their data and their gallery."""

import itertools
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from lightning import LightningModule
from lightning.pytorch.loggers import WandbLogger
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from callbacks.figures.callback import FigureCallback
from callbacks.figures.grids import grid
from callbacks.galleries.generated_images import MAX_PREVIEWS, GeneratedImages
from datamodules.batches import ContentStyle
from datamodules.images.single_image import ImagePair, read_resized
from helpers import draw_picture, fingerprint_of_global_randomness, quiet_trainer
from zoo.command.main import main
from zoo.generation.base import GenerativeSystem
from zoo.generation.image_optimization import ImageOptimization
from zoo.generation.style_transfer import ContentReconstruction, StyleTransfer

SIZE = 32
CONTENT, STYLE = {"relu2_1": 1.0}, {"relu1_1": 1.0, "relu2_1": 0.5}
LBFGS = partial(torch.optim.LBFGS, max_iter=6, line_search_fn="strong_wolfe")


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A folder with content.png (60 x 40) and style.png (50 x 70)."""
    draw_picture(1, (60, 40)).save(tmp_path / "content.png")
    draw_picture(2, (50, 70)).save(tmp_path / "style.png")
    return tmp_path


def pair(folder: Path, **options) -> ImagePair:
    return ImagePair("content.png", **({"style": "style.png", "size": SIZE, "data_dir": folder} | options))


def transfer(weights: Path, kind: type = StyleTransfer, **options) -> StyleTransfer:
    torch.manual_seed(0)
    layers = {"content_layers": CONTENT} | ({"style_layers": STYLE} if kind is StyleTransfer else {})
    return kind(weights=str(weights), **(layers | options))


def fitted(module: GenerativeSystem, data: ImagePair, **options) -> dict[str, float]:
    """Trains, and returns the metrics at the end."""
    trainer = quiet_trainer(**({"max_epochs": 1} | options))
    trainer.fit(module, datamodule=data)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


# Data


@pytest.mark.parametrize(
    ("size", "expected"), [(32, (32, 48)), (40, (40, 60)), ((40, 60), (40, 60)), ((20, 10), (20, 10)), (1, (1, 2))]
)
def test_sizes_are_of_the_shorter_side_or_exact(two, size, expected):
    assert read_resized(two / "content.png", size).shape == (1, 3, *expected)


def test_cropping_is_about_the_center(tmp_path):
    pixels = np.zeros((40, 90, 3), np.uint8)
    pixels[:, 25:65] = (255, 128, 0)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    found = read_resized(tmp_path / "wide.png", (40, 40))
    assert torch.equal(found, torch.tensor([1.0, 128 / 255, 0.0])[None, :, None, None].expand(1, 3, 40, 40))


def test_at_its_own_size_an_image_is_unchanged(two):
    found = (read_resized(two / "content.png", 40)[0] * 255).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(found, np.asarray(draw_picture(1, (60, 40))))


def test_gray_transparent_and_huge_images(tmp_path):
    draw_picture(0).convert("L").save(tmp_path / "gray.png")
    clear = draw_picture(0).convert("RGBA")
    clear.putalpha(0)
    clear.save(tmp_path / "clear.png")
    Image.new("RGB", (20_000, 700), "red").save(tmp_path / "wide.jpg")
    gray = read_resized(tmp_path / "gray.png", 30)
    assert torch.equal(gray[:, 0], gray[:, 2])
    assert torch.equal(read_resized(tmp_path / "clear.png", 30), torch.ones(1, 3, 30, 40))
    assert read_resized(tmp_path / "wide.jpg", (32, 48)).shape == (1, 3, 32, 48)
    assert read_resized(tmp_path / "wide.jpg", 7).shape == (1, 3, 7, 200)


def test_an_epoch_is_length_steps_of_the_same_images(two):
    data = pair(two, length=7, style_size=(20, 30))
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert len(batches) == 7
    assert all(batch is data.images for batch in batches)
    assert isinstance(data.images, ContentStyle)
    assert [tuple(part.shape) for part in data.images] == [(1, 3, 32, 48), (1, 3, 20, 30)]
    assert [len(loader) for loader in (data.val_dataloader()["val"], data.test_dataloader())] == [1, 1]
    assert data.image_shape == (3, 32, 48)
    alone = pair(two, style=None)
    alone.setup("fit")
    assert alone.images.style is None


def test_bad_images_are_one_clear_error(two, tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(FileNotFoundError, match=r"nothing\.png does not exist, neither here nor in .*ZOO_DATA"):
        pair(two, style="nothing.png")
    with pytest.raises(ValueError, match=r"text\.png cannot be read as an image"):
        pair(two, style="text.png").setup("fit")
    with pytest.raises(ValueError, match=r"content\.png is 60x40 pixels: expected 61x41 or more; take a larger"):
        pair(two, size=41).setup("fit")
    with pytest.raises(ValueError, match="size is 0"):
        pair(two, size=0)
    with pytest.raises(ValueError, match="length is 0"):
        pair(two, length=0)


# Systems


def test_image_optimization_reaches_the_image(two):
    torch.manual_seed(0)
    module, data = ImageOptimization(), pair(two, length=80)
    metrics = fitted(module, data)
    error = (module.sample(1) - data.images.content).square().mean()
    assert metrics["val/psnr"] > 30
    assert metrics["val/psnr"] == pytest.approx(float(-10 * error.log10()), abs=1e-3)
    assert metrics["val/loss"] == pytest.approx(float(error), rel=1e-3)


def test_the_image_is_the_only_parameter(two, vgg_weights):
    module = transfer(vgg_weights, optimizer=partial(torch.optim.Adam, lr=5.0))
    fitted(module, pair(two, length=3))
    assert {name: tuple(p.shape) for name, p in module.named_parameters()} == {"net.image": (1, 3, 32, 48)}
    assert list(module.state_dict()) == ["net.image"]
    assert 0 == module.net.image.min() < module.net.image.max() == 1, "clamped to 0..1 after each step"
    assert module.sample(3).shape == (3, 3, 32, 48)


@pytest.mark.parametrize("start", ["noise", "content", "style"])
def test_it_starts_from_the_requested_image(two, vgg_weights, start):
    module, data = transfer(vgg_weights, start=start), pair(two)
    quiet_trainer().validate(module, datamodule=data, verbose=False)
    image, images = module.sample(1), data.images
    if start == "content":
        assert torch.equal(image, images.content)
    elif start == "style":
        gap = image.mean((2, 3)) - images.style.mean((2, 3))
        assert gap.abs().max() < 0.02
        assert not torch.allclose(image, images.content)
    else:
        assert float(image.mean()) == pytest.approx(0.5, abs=0.02)
        assert float(image.std()) == pytest.approx(12**-0.5, abs=0.02)


def by_hand(weights: Path, image: Tensor, images: ContentStyle, balance: float) -> dict[str, float]:
    """The loss with torchvision's net and einsum."""
    with torch.device("meta"):
        net = torchvision.models.vgg16(weights=None).features[:7]
    state = {name.removeprefix("features."): value.float() for name, value in load_file(weights).items()}
    net.load_state_dict({name: state[name] for name in net.state_dict()}, assign=True)

    def features(x: Tensor) -> dict[str, Tensor]:
        first = net[:2](255 * (x - torch.tensor([0.5, 0.4, 0.3])[:, None, None]))
        return {"relu1_1": first.clone(), "relu2_1": net[2:](first)}

    def gram(maps: Tensor) -> Tensor:
        return torch.einsum("bchw,bdhw->bcd", maps, maps) / maps[0, 0].numel()

    with torch.no_grad():
        ours, content, style = features(image), features(images.content), features(images.style)
        target = content["relu2_1"]
        terms = {"content": float(((ours["relu2_1"] - target) ** 2).sum() / (target**2).sum()), "style": 0.0}
        for layer, weight in STYLE.items():
            target = gram(style[layer])
            terms["style"] += weight * float(((gram(ours[layer]) - target) ** 2).sum() / (target**2).sum())
    return terms | {"loss": terms["content"] + balance * terms["style"]}


@pytest.mark.parametrize("start", ["noise", "content"])
def test_the_loss_equals_another_computation(two, vgg_weights, start):
    module, data = transfer(vgg_weights, start=start, balance=3.0), pair(two)
    found = quiet_trainer().validate(module, datamodule=data, verbose=False)[0]
    expected = by_hand(vgg_weights, module.sample(1), data.images, 3.0)
    assert found == {f"val/{name}": pytest.approx(value, rel=1e-3, abs=1e-6) for name, value in expected.items()}
    assert (found["val/content"] < 1e-6) == (start == "content")


def test_the_loss_is_relative(two, vgg_weights):
    """It does not depend on the scale of the features, and features of 0 are as far as 1 from each layer's target."""
    module, data = transfer(vgg_weights), pair(two)
    quiet_trainer().validate(module, datamodule=data, verbose=False)
    image, batch, original = module.net.image, data.images, module.features.forward
    with torch.no_grad():
        image.uniform_()

    def losses_at(scale: float) -> dict[str, float]:
        module.features.forward = lambda x: {layer: scale * maps for layer, maps in original(x).items()}
        module.targets = None
        return {name: value.item() for name, value in module.losses(batch, "val").items()}

    assert losses_at(1000.0) == pytest.approx(losses_at(1.0), rel=1e-3)
    module.features.forward = lambda x: {layer: 0 * maps for layer, maps in original(x).items()}  # targets are kept
    found = {name: value.item() for name, value in module.losses(batch, "val").items()}
    expected = {"content": sum(CONTENT.values()), "style": sum(STYLE.values())}
    assert found == pytest.approx(expected | {"loss": expected["content"] + module.balance * expected["style"]})


@pytest.mark.parametrize(("optimizer", "steps"), [(partial(torch.optim.Adam, lr=0.03), 8), (LBFGS, 3)])
def test_style_transfer_learns(two, vgg_weights, optimizer, steps):
    module, data = transfer(vgg_weights, optimizer=optimizer), pair(two, length=steps)
    before = quiet_trainer().validate(module, datamodule=data, verbose=False)[0]
    after = fitted(module, data)
    assert after["val/loss"] < 0.6 * before["val/loss"]
    assert after["val/style"] < 0.6 * before["val/style"]


def test_evaluations_of_a_line_search_are_not_logged(two, vgg_weights):
    module, data = transfer(vgg_weights, optimizer=LBFGS), pair(two, length=1)
    before = quiet_trainer().validate(module, datamodule=data, verbose=False)[0]
    after = fitted(module, data)
    assert after["train/loss"] == pytest.approx(before["val/loss"], rel=1e-4)


def test_content_reconstruction_needs_no_style(two, vgg_weights):
    module, data = transfer(vgg_weights, ContentReconstruction), pair(two, style=None, length=40)
    before = quiet_trainer().validate(module, datamodule=data, verbose=False)[0]
    after = fitted(module, data)
    assert after["val/loss"] == after["val/content"] < 0.1 * before["val/loss"]
    assert "val/style" not in after


@pytest.mark.parametrize(("backbone", "layer"), [("squeezenet1_0", "relu1"), ("vgg19", "relu1_1")])
def test_other_backbones(two, tmp_path, backbone, layer):
    with torch.device("meta"):
        first = torchvision.models.get_model(backbone, weights=None).features[0].state_dict()
    save_file({f"features.0.{name}": torch.rand_like(value, device="cpu") for name, value in first.items()},
              tmp_path / "first.safetensors")  # fmt: skip
    module = StyleTransfer(backbone, str(tmp_path / "first.safetensors"), {layer: 1.0}, {layer: 1.0})
    assert np.isfinite(list(fitted(module, pair(two, length=2)).values())).all()


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed", "bf16-true"])
@pytest.mark.filterwarnings("ignore:.*not supported on CPU.*", "ignore:.*AMP on CPU.*")
def test_16_bits_give_no_nan_and_about_the_same_loss(two, vgg_weights, precision):
    module, data = transfer(vgg_weights), pair(two, length=4)
    exact = fitted(transfer(vgg_weights), pair(two, length=4))
    metrics = fitted(module, data, precision=precision)
    assert module.net.image.isfinite().all()
    assert {target.dtype for targets in module.targets for target in targets.values()} == {torch.float32}
    assert metrics["val/loss"] == pytest.approx(exact["val/loss"], rel=0.1)


def test_a_saved_image_is_loaded_without_data_and_a_size_mismatch_is_an_error(two, vgg_weights, tmp_path):
    module, data = transfer(vgg_weights), pair(two, length=3)
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(module, datamodule=data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = StyleTransfer.load_from_checkpoint(tmp_path / "a.ckpt")
    assert torch.equal(again.sample(1), module.sample(1))
    assert (tmp_path / "a.ckpt").stat().st_size < 200_000, "the backbone is not in it"
    tested, same = (quiet_trainer().test(x, datamodule=data, verbose=False)[0] for x in (module, again))
    assert tested == same
    with pytest.raises(ValueError, match=r"the image has 48x32 pixels, but the content 45x30.*data\.size"):
        quiet_trainer().test(again, datamodule=pair(two, size=30))
    with pytest.raises(ValueError, match=r"net\.image is \(1, 3, 32, 48\) there and \(1, 3, 30, 45\) here"):
        quiet_trainer().test(transfer(vgg_weights), datamodule=pair(two, size=30), ckpt_path=tmp_path / "a.ckpt")
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert saved["data"] == {"image_shape": [3, 32, 48]}


def test_a_second_training_continues_and_other_data_replace_the_targets(two, vgg_weights):
    module, data = transfer(vgg_weights), pair(two, length=3)
    first = fitted(module, data)
    assert fitted(module, data)["val/loss"] < first["val/loss"]
    swapped = ImagePair("style.png", "content.png", size=(32, 48), data_dir=two)
    found = quiet_trainer().validate(module, datamodule=swapped, verbose=False)[0]
    assert found["val/loss"] > 1.5 * first["val/loss"], "the targets are those of the data at hand"


def test_missing_images_are_one_clear_error(two, vgg_weights):
    for options in ({}, {"start": "style"}):
        with pytest.raises(ValueError, match=r"the data have no style: expected two images; add data\.style"):
            quiet_trainer().validate(transfer(vgg_weights, **options), datamodule=pair(two, style=None))
    with pytest.raises(ValueError, match="start is 'nothing': expected one of noise, content, style"):
        ImageOptimization(start="nothing")
    loader = torch.utils.data.DataLoader([0])
    with pytest.raises(ValueError, match=r"found no `images` in its data.*ImagePair"):
        quiet_trainer().validate(ImageOptimization(), loader)


def test_the_command_ends_with_one_line(fake_data, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOO_DATA", str(fake_data))
    (tmp_path / "text.jpg").write_text("not an image")
    fit = ["fit", "generation/style-transfer", "--data.size", "64"]
    for options, expected in {
        ("--model.weights", "nowhere.safetensors"): "nowhere.safetensors does not exist",
        ("--model.content_layers", "{relu3_9: 1.0}"): "vgg16 has no layer 'relu3_9'",
        ("--model.backbone", "squeezenet1_0", "--model.style_layers", "{relu1: 1}", "--model.content_layers", "{}"): (
            "do not fit"
        ),
        ("--data.content", "nowhere.jpg"): "nowhere.jpg does not exist",
        ("--data.style", "text.jpg"): "text.jpg cannot be read as an image",
        ("--data.size", "1000"): "take a larger image or a smaller size",
    }.items():
        assert main([*fit, *options]) == 2
        line = capfd.readouterr().err.strip().splitlines()[-1]
        assert line.startswith("zoo: ")
        assert expected in line, line


# The gallery of generated images


def assert_legible(figure: Figure) -> None:
    """No text overlaps another or leaves the figure."""
    FigureCanvasAgg(figure).draw()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    for text, box in boxes:
        assert min(box.x0, box.y0) >= 0, text
        assert (box.p1 <= figure.bbox.p1).all(), text
    for (text, box), (other, other_box) in itertools.combinations(boxes, 2):
        width = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
        height = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
        assert width <= 1 or height <= 1, f"{text!r} overlaps {other!r}"


class Waves(LightningModule):
    """Makes random images, with everything that the callback could disturb."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout())
        self.channels, self.modes = channels, []

    def sample(self, n: int) -> Tensor:
        self.modes.append((self.training, torch.is_grad_enabled()))
        np.random.rand()  # noqa: NPY002
        return torch.rand(n, self.channels, 9, 14)

    def training_step(self, batch, batch_idx):
        return self.net(torch.ones(1, 2)).sum()

    validation_step = test_step = lambda self, batch, batch_idx: None

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def loader(length: int = 6) -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader(list(range(length)))


@pytest.fixture
def published(monkeypatch) -> list[str]:
    names, publish = [], FigureCallback.publish

    def recorded(self, trainer, name, figure, table=None):
        names.append(name)
        assert_legible(figure)
        return publish(self, trainer, name, figure, table)

    monkeypatch.setattr(FigureCallback, "publish", recorded)
    return names


@pytest.mark.parametrize(("n", "channels"), [(1, 3), (4, 1), (12, 4)])
def test_samples_are_saved_at_their_own_size(tmp_path, published, n, channels):
    trainer = quiet_trainer(max_epochs=1, default_root_dir=tmp_path, callbacks=[GeneratedImages(n)])
    trainer.fit(Waves(channels), loader())
    folder = tmp_path / "pictures"
    names = ["result.png"] if n == 1 else [f"sample_{i}.png" for i in range(n)]
    assert {path.name for path in folder.iterdir()} == {"samples.png", *names}
    for name in names:
        image = Image.open(folder / name)
        assert (image.size, image.mode) == ((14, 9), {1: "L", 3: "RGB", 4: "RGBA"}[channels])
    assert published == ["samples"]


def test_the_saved_sample_is_the_sample(two, tmp_path, published):
    module, data = ImageOptimization(start="content"), pair(two)
    quiet_trainer(default_root_dir=tmp_path, callbacks=[GeneratedImages()]).test(module, datamodule=data, verbose=False)
    found = np.asarray(Image.open(tmp_path / "pictures" / "result.png"))
    assert np.array_equal(found, (module.sample(1)[0] * 255).round().byte().permute(1, 2, 0).numpy())
    assert published == ["samples"]


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"every_n_steps": 4}, [0, 4, 8, 12]),
        ({"every_n_steps": 5}, [0, 5, 10, 12]),
        ({"every_n_epochs": 1}, [0, 6, 12]),
        ({}, [12]),
    ],
)
def test_previews_are_drawn_at_the_requested_steps(tmp_path, published, options, steps):
    callback = GeneratedImages(**options)
    quiet_trainer(max_epochs=2, default_root_dir=tmp_path, callbacks=[callback]).fit(Waves(), loader())
    assert list(callback.previews) == steps
    assert published == ["samples"] * len(steps) + ["progress"] * (len(steps) > 1)


def test_previews_span_the_training_and_stay_few(tmp_path):
    callback = GeneratedImages(every_n_steps=1)
    quiet_trainer(max_epochs=1, default_root_dir=tmp_path, callbacks=[callback]).fit(Waves(), loader(20))
    steps = list(callback.previews)
    assert len(steps) == MAX_PREVIEWS
    assert (steps[0], steps[-1]) == (0, 20)
    assert np.diff(steps).max() <= 2.1 * np.diff(steps).min() + 4


def test_previews_survive_a_resume(tmp_path):
    first, again = GeneratedImages(every_n_steps=3), GeneratedImages(every_n_steps=3)
    trainer = quiet_trainer(max_epochs=1, default_root_dir=tmp_path, callbacks=[first])
    trainer.fit(Waves(), loader())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    trainer = quiet_trainer(max_epochs=2, default_root_dir=tmp_path, callbacks=[again])
    trainer.fit(Waves(), loader(), ckpt_path=tmp_path / "a.ckpt")
    assert list(again.previews) == [0, 3, 6, 9, 12]
    assert all(np.array_equal(first.previews[step], again.previews[step]) for step in first.previews)
    trainer = quiet_trainer(max_epochs=1, default_root_dir=tmp_path, callbacks=[again])
    trainer.fit(Waves(), loader())
    assert list(again.previews) == [0, 3, 6], "another training starts from the beginning"


def test_sampling_disturbs_nothing(tmp_path):
    module, callback = Waves(), GeneratedImages(2)
    trainer = quiet_trainer(max_epochs=1, default_root_dir=tmp_path, callbacks=[callback])
    trainer.fit(module, loader())
    module.train()
    module.net[1].eval()
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = fingerprint_of_global_randomness()
    callback.draw(trainer, module)
    assert fingerprint_of_global_randomness() == before
    assert [child.training for child in module.modules()] == [True, True, True, False]
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in module.parameters())
    assert module.modes[-1] == (False, False), "samples are made in evaluation, without a graph"


def test_progress_is_drawn_when_training_breaks(tmp_path, published):
    class Breaks(Waves):
        def training_step(self, batch, batch_idx):
            if batch_idx == 4:
                raise RuntimeError("broken")
            return super().training_step(batch, batch_idx)

    trainer = quiet_trainer(max_epochs=1, default_root_dir=tmp_path, callbacks=[GeneratedImages(every_n_steps=2)])
    with pytest.raises(RuntimeError, match="broken"):
        trainer.fit(Breaks(), loader())
    assert published == ["samples"] * 3 + ["progress"]


def test_grids_of_all_sizes_are_legible():
    for count, columns, shape in ((1, 1, (20, 30, 3)), (8, 8, (20, 30, 3)), (8, 8, (40, 10, 1)), (12, 5, (9, 9, 4))):
        images, names = [np.zeros(shape, np.uint8)] * count, [f"step {i * 1000}" for i in range(count)]
        assert_legible(grid(images, names, "ContentReconstruction after 10000 steps", "and more", columns))


def test_what_the_gallery_needs_is_one_clear_error():
    with pytest.raises(ValueError, match="n is 0"):
        GeneratedImages(0)
    module = ImageOptimization()
    module.sample = None
    with pytest.raises(ValueError, match="ImageOptimization has no `sample`: expected"):
        quiet_trainer(callbacks=[GeneratedImages()]).validate(module, loader())


def test_wandb_gets_the_figures(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "wandb-data"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(offline=True, save_dir=tmp_path)
    try:
        quiet_trainer(
            max_epochs=1, logger=logger, default_root_dir=tmp_path, callbacks=[GeneratedImages(every_n_steps=3)]
        ).fit(Waves(), loader())
    finally:
        logger.experiment.finish()
    media = [file.name for file in tmp_path.glob("wandb/offline-run-*/files/media/**/*.png")]
    assert sum(name.startswith("samples_") for name in media) == 3
    assert sum(name.startswith("progress_") for name in media) == 1
