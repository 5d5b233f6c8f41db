"""Batched augmentations equal a plain reference sample by sample, and draw separately for each sample."""

import math

import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2.functional import affine

from datamodules.augment.images import Affine, Augmentation, Crop, Cutout, Flip, ImageAugmentation, Rotate
from datamodules.batches import Labelled
from helpers import fingerprint_of_global_randomness

H, W = 9, 13
EVERY = {
    "flip": Flip(),
    "crop": Crop(2),
    "crop reflect": Crop(2, "reflect"),
    "cutout": Cutout(4),
    "cutout black": Cutout(5, fill=0.0),
    "affine": Affine(degrees=30, translate=0.2, scale=0.3),
    "rotate": Rotate(20),
}


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int, channels: int = 3, height: int = H, width: int = W) -> torch.Tensor:
    return torch.rand(n, channels, height, width, generator=drawn(99))


def copies(n: int, **shape) -> torch.Tensor:
    """`n` times the same image."""
    return images(1, **shape).expand(n, -1, -1, -1)


def apply(augmentation: Augmentation, x: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return augmentation(Labelled(x, torch.arange(len(x))), drawn(seed)).image


@pytest.mark.parametrize("augmentation", EVERY.values(), ids=EVERY.keys())
class TestEvery:
    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_it_keeps_shape_dtype_range_and_labels_and_does_not_change_its_input(self, augmentation, channels, dtype):
        x = images(5, channels).to(dtype)
        before, batch = x.clone(), Labelled(x, torch.arange(5))
        result = augmentation(batch, drawn())
        assert (result.image.shape, result.image.dtype) == (x.shape, dtype)
        assert result.image.min() >= 0
        assert result.image.max() <= 1
        assert torch.equal(result.label, batch.label)
        assert torch.equal(x, before)

    def test_it_draws_for_each_sample(self, augmentation):
        result = apply(augmentation, copies(64))
        assert len(result.flatten(1).unique(dim=0)) > (1 if isinstance(augmentation, Flip) else 10)

    def test_it_is_a_function_of_the_generator(self, augmentation):
        x, before = copies(20), fingerprint_of_global_randomness()
        assert torch.equal(apply(augmentation, x, 1), apply(augmentation, x, 1))
        assert not torch.equal(apply(augmentation, x, 1), apply(augmentation, x, 2))
        assert fingerprint_of_global_randomness() == before


def outcomes(result: torch.Tensor, possible: list[torch.Tensor]) -> torch.Tensor:
    """How often each of the possible images occurs; fails if another one occurs."""
    equal = torch.stack([(result == each).flatten(1).all(1) for each in possible])
    assert equal.any(0).all()
    return equal.sum(1)


@pytest.mark.parametrize(("p", "least", "most"), [(0.5, 430, 570), (0.1, 60, 140), (0.0, 0, 0), (1.0, 1000, 1000)])
def test_flip_returns_the_image_or_its_mirror_image_with_probability_p(p, least, most):
    x = images(1)
    kept, mirrored = outcomes(apply(Flip(p), x.expand(1000, -1, -1, -1)), [x, torch.flip(x, [3])])
    assert kept + mirrored == 1000
    assert least <= mirrored <= most


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate"])
def test_crop_returns_each_window_of_the_padded_image_equally_often(mode):
    pad, x = 2, images(1)
    padded = F.pad(x, (pad,) * 4, mode=mode)
    windows = [padded[..., top : top + H, left : left + W] for top in range(5) for left in range(5)]
    counts = outcomes(apply(Crop(pad, mode), x.expand(2500, -1, -1, -1)), windows)
    assert counts.min() > 60  # of 100, the expectation
    assert counts.max() < 140


def test_crop_takes_the_window_from_the_sample_itself():
    x = images(50)
    for image, result in zip(x, apply(Crop(1), x), strict=True):
        padded = F.pad(image[None], (1,) * 4)
        outcomes(result[None], [padded[..., i : i + H, j : j + W] for i in range(3) for j in range(3)])


def published_cutout(x: torch.Tensor, size: int, row: int, column: int, fill: torch.Tensor) -> torch.Tensor:
    """One sample (C, H, W), as in the authors' code for even sizes; a square of odd size has a center pixel."""
    result, half = x.clone(), size // 2
    rows = slice(max(0, row - half), min(H, row + size - half))
    columns = slice(max(0, column - half), min(W, column + size - half))
    result[:, rows, columns] = fill.view(-1, 1, 1)
    return result


@pytest.mark.parametrize("size", [4, 5])
@pytest.mark.parametrize("fill", [None, 0.0, 0.7])
def test_cutout_covers_a_square_about_any_center_clipped_at_the_border(size, fill):
    x = images(1)
    color = x.mean((0, 2, 3)) if fill is None else torch.full((3,), fill)
    possible = [published_cutout(x[0], size, i, j, color)[None] for i in range(H) for j in range(W)]
    result = apply(Cutout(size, fill), x.expand(4000, -1, -1, -1))
    nearest = torch.stack([(result - each).abs().flatten(1).amax(1) for each in possible])  # means differ by rounding
    assert nearest.amin(0).max() < 1e-4
    assert nearest.argmin(0).unique().numel() == H * W
    areas = (result != x).any(1).sum((1, 2))
    assert areas.max() == size**2
    assert areas.min() == ((size + 1) // 2) ** 2


def test_cutout_fills_with_each_channels_mean_over_the_batch():
    x = images(6)
    result = apply(Cutout(3), x)
    hole = (result != x).all(1)
    for channel in range(3):
        torch.testing.assert_close(result[:, channel][hole].unique(), x[:, channel].mean()[None])


@pytest.mark.parametrize(
    ("degrees", "translate", "scale"),
    [(0, 0, 0), (30, 0, 0), (0, 0.3, 0), (0, 0, 0.4), (25, 0.2, 0.3), (180, 0.1, 0.1)],
)
def test_affine_equals_torchvision_sample_by_sample(degrees, translate, scale):
    x = images(8, height=16, width=24)
    turn, right, down, zoom = (torch.rand(4, 8, generator=drawn()) * 2 - 1).tolist()
    theirs = [
        affine(
            x[i],
            angle=-turn[i] * degrees,
            translate=[right[i] * translate * 24, down[i] * translate * 16],
            scale=1 + zoom[i] * scale,
            shear=[0.0, 0.0],
            interpolation=InterpolationMode.BILINEAR,
        )
        for i in range(8)
    ]
    torch.testing.assert_close(apply(Affine(degrees, translate, scale), x), torch.stack(theirs), atol=2e-4, rtol=0)


def test_affine_without_arguments_changes_nothing():
    torch.testing.assert_close(apply(Affine(), images(4)), images(4), atol=1e-5, rtol=0)


def test_a_quarter_turn_equals_rot90(monkeypatch):
    x = images(2, height=W, width=W)
    monkeypatch.setattr(torch, "rand", lambda *shape, **options: torch.tensor([[1.0, 0.0]] + [[0.5, 0.5]] * 3))
    result = Affine(degrees=90).image(x, drawn())
    rotated = [torch.rot90(image, k, (1, 2)) for image, k in zip(x, (1, -1), strict=True)]
    torch.testing.assert_close(result, torch.stack(rotated), atol=1e-4, rtol=0)


def test_rotate_stays_within_its_angle():
    x = torch.zeros(300, 1, 41, 41)
    x[:, :, 19:22, 33:36] = 1  # a dot at a distance from the center, whose direction gives the angle
    mass = apply(Rotate(20), x)[:, 0]
    along = torch.arange(41.0) - 20
    angles = torch.atan2((mass.sum(2) * along).sum(1), (mass.sum(1) * along).sum(1)) * 180 / math.pi
    assert angles.abs().max() < 20.5
    assert angles.min() < -17
    assert angles.max() > 17


def test_an_augmentation_without_a_definition_cannot_be_made():
    with pytest.raises(TypeError, match=r"abstract method '?__call__"):
        Augmentation()
    with pytest.raises(TypeError, match=r"abstract method '?image"):
        ImageAugmentation()
