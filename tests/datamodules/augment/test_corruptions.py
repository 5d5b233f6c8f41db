"""Corruptions equal a plain reference, grow with severity, and are measured as a classifier's error on them."""

import csv
import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from scipy.ndimage import convolve

from callbacks.monitors.corruption_error import CorruptionError
from datamodules.augment.corruptions import KINDS, SEVERITIES, corrupt, defocus_blur, jpeg, motion_blur, pixelate
from datamodules.boxes.shapes import Shapes
from helpers import Synthetic, draw_picture, fingerprint_of_global_randomness, quiet_trainer
from zoo.classification.plain_conv import PlainConv
from zoo.parts.optim.schedules import Constant

EACH = pytest.mark.parametrize("kind", KINDS)


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 3, size: tuple[int, int] = (32, 32)) -> torch.Tensor:
    """Smooth ones, (n, 3, H, W) uint8, mid-gray rather than black or white."""
    drawings = [np.asarray(draw_picture(seed, size)) for seed in range(n)]
    return (torch.from_numpy(np.stack(drawings)).permute(0, 3, 1, 2) * 0.6 + 40).to(torch.uint8)


@EACH
class TestEvery:
    @pytest.mark.parametrize(("channels", "size"), [(1, (32, 32)), (3, (48, 40)), (2, (28, 28))])
    def test_it_keeps_shape_and_type_and_its_input(self, kind, channels, size):
        x = images(2, size)[:, :channels]
        before = x.clone()
        result = corrupt(x, kind, 3)
        assert (result.shape, result.dtype) == (x.shape, torch.uint8)
        assert torch.equal(x, before)
        assert not torch.equal(result, x)

    def test_it_is_a_function_of_seed_and_severity_and_draws_from_no_global_generator(self, kind):
        before = fingerprint_of_global_randomness()
        assert torch.equal(corrupt(images(), kind, 2, seed=1), corrupt(images(), kind, 2, seed=1))
        assert fingerprint_of_global_randomness() == before
        is_random = kind.endswith("noise") or kind == "motion_blur"
        assert torch.equal(corrupt(images(), kind, 2, seed=1), corrupt(images(), kind, 2, seed=2)) != is_random

    def test_the_error_grows_with_severity(self, kind):
        x = images(20)
        errors = [(corrupt(x, kind, severity).float() - x).square().mean().item() for severity in SEVERITIES]
        assert errors == sorted(errors)
        assert errors[-1] > 1.5 * errors[0] > 0


def level(kind: str, severity: int) -> float:
    return KINDS[kind].strengths[severity - 1]


@pytest.mark.parametrize("severity", SEVERITIES)
def test_noises_have_the_stated_strength(severity):
    gray = torch.full((40, 3, 32, 32), 102, dtype=torch.uint8)  # 0.4
    noise = (corrupt(gray, "gaussian_noise", severity).double() - 102) / 255
    assert noise.std().item() == pytest.approx(level("gaussian_noise", severity), rel=0.03)
    shots = corrupt(gray, "shot_noise", severity).double() / 255
    assert shots.mean().item() == pytest.approx(0.4, abs=0.003)
    assert shots.std().item() == pytest.approx(math.sqrt(0.4 / level("shot_noise", severity)), rel=0.03)
    impulses = corrupt(gray, "impulse_noise", severity)
    for value in (0, 255):
        share = (impulses == value).double().mean().item()
        assert share == pytest.approx(level("impulse_noise", severity) / 2, rel=0.12)
    assert set(impulses.unique().tolist()) == {0, 102, 255}


def test_contrast_and_brightness_are_the_stated_formulas():
    x = images().double()
    for severity in SEVERITIES:
        mean = x.mean((2, 3), keepdim=True)
        expected = mean + level("contrast", severity) * (x - mean)
        assert (corrupt(images(), "contrast", severity) - expected).abs().max() < 0.51
        brighter = (x + 255 * level("brightness", severity)).clamp(max=255)
        assert (corrupt(images(), "brightness", severity) - brighter).abs().max() < 0.51


@pytest.mark.parametrize("radius", [0.6, 1.6, 3.0])
def test_defocus_is_a_convolution_with_a_disk(radius):
    x = torch.rand(1, 1, 40, 32, generator=drawn())
    reach = math.ceil(radius)
    fine = (np.arange(300 * (2 * reach + 1)) + 0.5) / 300 - reach - 0.5
    inside = (fine[:, None] ** 2 + fine**2 <= radius**2).astype(float)
    disk = inside.reshape(2 * reach + 1, 300, 2 * reach + 1, 300).mean((1, 3))
    expected = convolve(x[0, 0].numpy(), disk / disk.sum(), mode="mirror")
    torch.testing.assert_close(defocus_blur(x, radius, drawn())[0, 0].numpy(), expected, atol=0.02, rtol=0)


def test_lengths_grow_with_the_image():
    dot = torch.zeros(1, 1, 64, 64)
    dot[0, 0, 32, 32] = 1
    assert (defocus_blur(dot, 1.5, drawn()) > 0).sum() > 28  # a disk of radius 3, not 1.5
    assert (motion_blur(dot, 8.0, drawn()) > 0.01).sum() > 14


def test_motion_spreads_a_dot_along_a_line_of_its_own_direction_and_keeps_its_mass():
    dots = torch.zeros(40, 1, 32, 32)
    dots[:, 0, 16, 16] = 1
    result = motion_blur(dots, 8.0, drawn())[:, 0]
    torch.testing.assert_close(result.sum((1, 2)), torch.ones(40), atol=1e-4, rtol=0)
    along = torch.arange(32.0) - 16
    x, y = along.expand(32, 32), along[:, None].expand(32, 32)
    xx, yy, xy = ((result * square).sum((1, 2)) for square in (x * x, y * y, x * y))
    spread = ((xx - yy).square() + 4 * xy.square()).sqrt()
    long, short = (xx + yy + spread) / 2, (xx + yy - spread) / 2  # variances along the motion and across it
    assert long.mean().item() == pytest.approx(8**2 / 12 + 0.2, rel=0.15)
    assert short.max() < 0.5
    angles = torch.atan2(2 * xy, xx - yy) / 2
    assert angles.min() < -1
    assert angles.max() > 1


def test_pixelate_takes_the_mean_of_equal_squares():
    x = torch.rand(2, 3, 32, 64, generator=drawn())
    squares = x.view(2, 3, 8, 4, 16, 4).mean((3, 5), keepdim=True).expand(-1, -1, -1, 4, -1, 4).reshape(x.shape)
    torch.testing.assert_close(pixelate(x, 0.25, drawn()), squares)
    assert int((pixelate(x, 0.7, drawn())[0, 0, 0].diff() != 0).sum()) == round(0.7 * 64) - 1


def test_jpeg_of_high_quality_changes_little_and_keeps_samples_apart():
    x = images(4, (40, 40)).float() / 255
    assert (jpeg(x, 95, drawn()) - x).abs().mean() < 0.02
    assert torch.equal(jpeg(x, 20, drawn())[2:], jpeg(x[2:], 20, drawn()))


@pytest.mark.parametrize(
    ("kind", "severity", "message"),
    [("fog", 3, "corruption is 'fog' at severity 3: expected one of gaussian_noise, shot"), ("jpeg", 6, "severity 6")],
)
def test_an_unknown_kind_or_severity_is_an_error(kind, severity, message):
    with pytest.raises(ValueError, match=message):
        corrupt(images(), kind, severity)


class Bright(PlainConv):
    """Says 1 where an image is brighter than 0.75 on average, else 0."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        mean = image.mean((1, 2, 3)) * 0.25 + 0.5  # undoes the normalization of `Synthetic`
        return torch.stack([0.75 - mean, mean - 0.75], 1)


class Gray(Synthetic):
    """Images of one gray value each, with label 0: 0.5, 0.6, 0.7 and 0.8 in turn."""

    def make_datasets(self) -> dict:
        datasets = super().make_datasets()
        test = datasets["test"]
        values = (255 * (0.5 + 0.1 * (torch.arange(len(test)) % 4))).round().to(torch.uint8)
        test.images = values[:, None, None, None].expand(-1, *self.image_shape).clone()
        test.labels = torch.zeros(len(test), dtype=torch.int64)
        return datasets


def net(kind: type[PlainConv] = PlainConv) -> PlainConv:
    torch.manual_seed(0)
    return kind(optimizer=partial(torch.optim.SGD, lr=0.01), schedule=Constant)


def evaluate(data, callback: CorruptionError, folder: Path, kind: type[PlainConv] = Bright, **options) -> dict:
    logger = CSVLogger(folder, name="", version="")
    trainer = quiet_trainer(callbacks=[callback], logger=logger, default_root_dir=folder, **options)
    return trainer.test(net(kind), datamodule=data, verbose=False)[0]


def data(**options) -> Gray:
    return Gray(sizes=(8, 8, 240), image_shape=(1, 28, 28), **options)


def test_the_error_of_a_known_classifier(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = evaluate(data(), CorruptionError(kinds=["brightness", "contrast"]), tmp_path)
    brightness = [0.5, 0.5, 0.75, 1.0, 1.0]  # 0.08, 0.14, 0.20, 0.27 or 0.35 is added to 0.5, 0.6, 0.7 and 0.8
    expected = {"test/corruption_error_brightness": sum(brightness) / 5, "test/corruption_error_contrast": 0.25}
    assert found["test/acc"] == pytest.approx(0.75)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value), name
    assert found["test/corruption_error"] == pytest.approx(sum(expected.values()) / 2)
    with open(tmp_path / "corruption_error.csv") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["kind", *(f"severity {severity}" for severity in SEVERITIES), "mean"]
    assert [row[0] for row in rows[1:]] == ["brightness", "contrast", "mean"]
    assert [float(value) for value in rows[1][1:]] == [*brightness, pytest.approx(sum(brightness) / 5)]
    assert float(rows[3][-1]) == pytest.approx(found["test/corruption_error"], abs=1e-4)
    logged = (tmp_path / "metrics.csv").read_text()
    assert "test/corruption_error_brightness" in logged
    assert (tmp_path / "pictures" / "corruption_error.png").is_file()


def test_all_kinds_by_default_whatever_the_batch_size_and_only_some_images_if_wanted(tmp_path):
    sizes = [
        evaluate(data(eval_batch_size=size), CorruptionError((1, 5), limit=130), tmp_path, PlainConv)
        for size in (7, 500)
    ]
    assert sizes[0] == pytest.approx(sizes[1])
    assert {name.removeprefix("test/corruption_error_") for name in sizes[0]} >= set(KINDS)
    limits = ({"limit": 240}, {}), ({"limit": 60}, {}), ({}, {"limit_test_batches": 2})
    errors = [
        evaluate(data(eval_batch_size=30), CorruptionError((2,), ["brightness"], **of_callback), tmp_path, **of_trainer)
        for of_callback, of_trainer in limits
    ]
    # Half of all are too bright; every fourth is one of 0.5, which stays dark enough.
    assert [each["test/corruption_error"] for each in errors] == [0.5, 0, 0]


def test_metrics_modes_and_random_states_stay_as_they_are(tmp_path, trainer_states):
    plain, measured = (trainer_states(tmp_path, callbacks) for callbacks in ([], [CorruptionError((3,), limit=50)]))
    assert plain == measured


@pytest.fixture
def trainer_states():
    def run(folder: Path, callbacks: list) -> tuple:
        module = net()
        torch.manual_seed(5)
        trainer = quiet_trainer(callbacks=callbacks, default_root_dir=folder)
        metrics = trainer.test(module, datamodule=data(), verbose=False)[0]
        known = {name: value for name, value in metrics.items() if "corruption" not in name}
        modes = [child.training for child in module.modules()]
        state = {name: value.sum().item() for name, value in module.state_dict().items()}
        return known, modes, state, fingerprint_of_global_randomness()

    return run


def test_two_processes_share_the_images(tmp_path):
    images, module, callback = data(), net(Bright), CorruptionError((4,), limit=230)
    images.setup("test")

    def errors(rank: int, world_size: int) -> torch.Tensor:
        """As of a process whose sums are not added to those of the others."""
        strategy = SimpleNamespace(
            batch_to_device=lambda batch: batch._replace(image=images.normalize(batch.image.float() / 255)),
            reduce=lambda values, reduce_op: values,
        )
        trainer = SimpleNamespace(
            datamodule=images, global_rank=rank, world_size=world_size, strategy=strategy, num_test_batches=[240]
        )
        return callback._errors(trainer, module, ("brightness", "gaussian_noise"))

    assert errors(0, 2).min() > 0.1
    torch.testing.assert_close(errors(0, 2) + errors(1, 2), errors(0, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": ["fog"]}, "'fog' is no kind of corruption: expected one of gaussian_noise"),
        ({"severities": (0,)}, "0 is no severity of a corruption: expected 1 to 5"),
        ({"limit": 0}, "limit 0: expected one or more"),
        ({"kinds": []}, r"kinds \[\] and limit None: expected one or more"),
    ],
)
def test_bad_arguments_are_one_clear_error(options, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        evaluate(data(), CorruptionError(**options), tmp_path)
    assert "\n" not in str(caught.value)


def test_batches_of_boxes_are_refused(tmp_path):
    boxes = Shapes(size=28, train_size=2, val_size=0, test_size=2)
    with pytest.raises(ValueError, match="test batches of Shapes are Boxed: expected images with their classes"):
        evaluate(boxes, CorruptionError(), tmp_path)
