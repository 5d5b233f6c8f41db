"""Batched augmentations equal a plain reference sample by sample, and draw separately for each sample."""

import math
import os
from collections import Counter

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
import albumentations as A
import pytest
import torch
import torch.nn.functional as F
from albumentations.pytorch import ToTensorV2
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2.functional import affine, elastic, gaussian_blur

from datamodules.augment.albumentations import Albumentations
from datamodules.augment.autoaugment import CIFAR10_POLICY, SYMMETRIC, AutoAugment
from datamodules.augment.autoaugment import apply as apply_operation
from datamodules.augment.boxes import BoxFlip
from datamodules.augment.images import (
    Affine,
    Augmentation,
    Color,
    Crop,
    Cutout,
    Elastic,
    Flip,
    ImageAugmentation,
    PatchGaussian,
    Rotate,
    constant,
)
from datamodules.batches import Labelled
from datamodules.boxes.shapes import Shapes
from datamodules.images.digits import Digits
from helpers import Synthetic, fingerprint_of_global_randomness, record

H, W = 9, 13
EVERY = {
    "flip": Flip(),
    "crop": Crop(2),
    "crop reflect": Crop(2, "reflect"),
    "cutout": Cutout(4),
    "cutout black": Cutout(5, fill=0.0),
    "affine": Affine(degrees=30, translate=0.2, scale=0.3),
    "rotate": Rotate(20),
    "patch of noise": PatchGaussian(4, 0.3),
    "elastic": Elastic(20.0, 2.0),
    "autoaugment": AutoAugment(),
    "albumentations": Albumentations([A.Affine(rotate=(-20, 20)), A.RandomBrightnessContrast()]),
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


def test_a_patch_of_noise_is_a_square_about_any_center_of_any_deviation_up_to_scale():
    x = torch.full((3000, 3, H, W), 0.5)
    result = apply(PatchGaussian(4, 0.1), x)
    noisy = (result != 0.5).any(1)
    rows, columns = noisy.any(2), noisy.any(1)
    assert torch.equal(noisy, rows[:, :, None] & columns[:, None, :])
    assert set(rows.sum(1).tolist()) == set(columns.sum(1).tolist()) == {2, 3, 4}  # clipped at the border
    first = Counter(zip(rows.float().argmax(1).tolist(), columns.float().argmax(1).tolist(), strict=True))
    assert len(first) == (H - 2) * (W - 2)  # the first two centers of an axis give the same first line, as do the last
    deviations = torch.stack([(image[:, there] - 0.5).std() for image, there in zip(result, noisy, strict=True)])
    deviations = deviations[noisy.sum((1, 2)) == 16]  # of 48 values each
    assert deviations.mean().item() == pytest.approx(0.05, abs=0.003)
    assert deviations.std().item() == pytest.approx(0.1 / math.sqrt(12), abs=0.003)
    assert 0.095 < deviations.max() < 0.13


def test_a_patch_of_noise_of_twice_the_images_size_is_everywhere_and_clipped_to_0_and_1():
    result = apply(PatchGaussian(2 * W, 2.0), images(50))
    assert (result != images(50)).float().mean() > 0.99
    assert (result == 0).any()
    assert (result == 1).any()


@pytest.mark.parametrize(("height", "width", "sigma"), [(24, 36, 2.0), (24, 36, 4.0), (8, 9, 4.0)])
def test_elastic_equals_torchvision_sample_by_sample(height, width, sigma):
    x, alpha = images(4, height=height, width=width), 30.0
    field = 2 * torch.rand(2, 4, height, width, generator=drawn()) - 1
    kernel = [min(2 * int(4 * sigma + 0.5) + 1, 2 * side - 1) for side in (width, height)]
    smooth = gaussian_blur(field, kernel, [sigma, sigma])
    moved = alpha * smooth * 2 / torch.tensor([width, height]).view(2, 1, 1, 1)  # their alpha is in half pixels
    theirs = [elastic(x[i], moved[:, i].permute(1, 2, 0)[None]) for i in range(4)]
    torch.testing.assert_close(apply(Elastic(alpha, sigma), x), torch.stack(theirs), atol=2e-5, rtol=0)
    assert (apply(Elastic(alpha, sigma), x) - x).abs().max() > 0.1


def test_elastic_displacements_are_in_pixels():
    """By one pixel to the right and two down, in all of a ramp."""
    x = (torch.arange(10.0)[:, None] + 0.1 * torch.arange(20.0)).expand(1, 1, -1, -1) / 20
    displacement = torch.tensor([1 * 2 / 20, 2 * 2 / 10]).expand(1, 10, 20, 2)
    result = Elastic().displaced(x, displacement)
    torch.testing.assert_close(result[..., :8, :19], x[..., 2:, 1:], atol=1e-5, rtol=0)
    assert torch.equal(result[..., 8:, :], torch.zeros(1, 1, 2, 20))


def test_elastic_of_the_papers_values_moves_pixels_by_about_two(monkeypatch):
    moved = []
    monkeypatch.setattr(Elastic, "displaced", lambda self, x, displacement: moved.append(displacement) or x)
    apply(Elastic(), torch.zeros(100, 1, 28, 28))
    assert (moved[0] * 14).norm(dim=3).mean().item() == pytest.approx(2.0, abs=0.2)


THEIRS = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)


def torchvisions(name: str, image: torch.Tensor, level: int, fill: float) -> torch.Tensor:
    """One operation of torchvision's AutoAugment on (C, H, W) uint8."""
    magnitudes, _ = THEIRS._AUGMENTATION_SPACE[name]
    values = magnitudes(10, *image.shape[1:])
    magnitude = 0.0 if values is None else math.copysign(float(values[abs(level)]), level)
    options = {"interpolation": InterpolationMode.NEAREST, "fill": {torch.Tensor: [fill] * 3}}
    return THEIRS._apply_image_or_video_transform(image, name, magnitude, **options)


def test_the_policy_and_its_ranges_are_torchvisions():
    for policy, theirs in zip(CIFAR10_POLICY, THEIRS._policies, strict=True):
        assert policy == tuple((name, probability, level or 0) for name, probability, level in theirs)
    assert set(SYMMETRIC) == {name for name, (_, signed) in THEIRS._AUGMENTATION_SPACE.items() if signed}


@pytest.mark.parametrize("name", THEIRS._AUGMENTATION_SPACE)
def test_each_operation_equals_torchvisions_on_each_image_bit_by_bit(name):
    x = (255 * images(3, height=20, width=30)).to(torch.uint8)
    x[0, :, :, :4], x[1, 0] = 200, x[1, 0] // 4 + 30  # something to equalize and to stretch
    for level in range(10):
        for sign in (1, -1) if name in SYMMETRIC else (1,):
            expected = torch.stack([torchvisions(name, image, sign * level, fill=128.0) for image in x])
            assert torch.equal(apply_operation(name, x, sign * level, fill=128.0), expected)


def test_autoaugment_applies_what_it_draws_to_each_sample_in_this_order():
    x = images(60, height=16, width=16)
    first, second = AutoAugment().draw(60, drawn(5))
    result = (255 * apply(AutoAugment(), x, 5)).round().to(torch.uint8)
    for i, image in enumerate((255 * x).round().to(torch.uint8)):
        for place in (first, second):
            if i in place:
                image = torchvisions(place[i][0], image, place[i][1], fill=128.0)
        assert torch.equal(result[i], image)


def test_autoaugment_draws_each_sub_policy_equally_often_and_each_operation_with_its_probability():
    n = 20_000
    places, expected = AutoAugment().draw(n, drawn()), [Counter(), Counter()]
    for policy in CIFAR10_POLICY:
        for place, (name, probability, level) in enumerate(policy):
            for sign in (1, -1) if name in SYMMETRIC and level else (1,):
                expected[place][name, sign * level] += n / 25 * probability / (2 if name in SYMMETRIC and level else 1)
    for found, wanted in zip(places, expected, strict=True):
        counts = Counter(found.values())
        for operation, count in wanted.items():
            assert counts[operation] == pytest.approx(count, abs=5 * math.sqrt(count) + 1), operation
        assert sum(counts.values()) == pytest.approx(sum(wanted.values()), rel=0.03)


def test_autoaugment_of_gray_images_and_of_others():
    assert apply(AutoAugment(), images(40, channels=1)).shape == (40, 1, H, W)
    with pytest.raises(ValueError, match=r"2 channels: AutoAugment expects 1 \(gray\) or 3"):
        apply(AutoAugment(), images(2, channels=2))


def test_albumentations_gets_each_image_in_8_bits_and_draws_for_each():
    x = images(30, height=W)
    turned = Albumentations([A.RandomRotate90(p=1.0)])
    rounded = (255 * x).round() / 255
    kinds = Counter()
    for image, result in zip(rounded, apply(turned, x), strict=True):
        (k,) = [k for k in range(4) if torch.allclose(torch.rot90(image, k, (1, 2)), result)]
        kinds[k] += 1
    assert len(kinds) == 4


def test_albumentations_draws_anew_for_each_batch_of_one_generator():
    generator, turned = drawn(), Albumentations([A.Affine(rotate=(-90, 90), p=1.0)])
    first, second = (turned.image(copies(6, height=W), generator) for _ in range(2))
    assert len(torch.cat([first, second]).flatten(1).unique(dim=0)) > 8


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        (
            [A.Resize(5, 5)],
            r"Resize make uint8 \(5, 5, 3\) of uint8 \(9, 13, 3\): expected uint8 \(9, 13, 3\).* end at the size",
        ),
        ([A.Normalize()], r"Normalize make float32 \(9, 13, 3\) .* leave out Normalize"),
    ],
)
def test_albumentations_that_change_size_or_type_are_one_clear_error(transforms, message):
    with pytest.raises(ValueError, match=message) as caught:
        apply(Albumentations(transforms), images(2))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "transforms",
    [
        [A.Normalize(p=0.5)],
        [A.HorizontalFlip(), A.Resize(24, 24)],
        [ToTensorV2()],
        [A.ToFloat(), A.FromFloat("uint8", 1)],
    ],
)
def test_albumentations_of_another_type_size_or_range_are_refused_before_training(transforms):
    data = Digits(augment=[Albumentations(transforms)])
    names = ", ".join(type(transform).__name__ for transform in transforms)
    with pytest.raises(ValueError, match=f"the transforms {names} make .*leave out Normalize"):
        data.setup("fit")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PatchGaussian(0), "size is 0 and scale 0.1: expected a size of 1 or more"),
        (lambda: PatchGaussian(5, -0.1), "size is 5 and scale -0.1"),
        (lambda: PatchGaussian(5, math.nan), "scale nan"),
        (lambda: Elastic(-1.0), "alpha is -1.0 and sigma 4.0: expected an alpha of 0 or more"),
        (lambda: Elastic(5.0, 0.0), "alpha is 5.0 and sigma 0.0"),
        (lambda: AutoAugment(128), "fill is 128: expected a gray value in 0..1"),
    ],
)
def test_arguments_out_of_range_are_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("augmentation", [*EVERY.values(), Color(), BoxFlip()], ids=[*EVERY, "color", "boxes"])
def test_boxes_are_not_left_behind(augmentation):
    """What moves pixels but no boxes is refused with boxes before training; everything else runs."""
    data = Shapes(size=16, train_size=4, val_size=0, test_size=0, batch_size=4, max_objects=1, augment=[augmentation])
    if getattr(augmentation, "moves_pixels", False):
        name = type(augmentation).__name__
        with pytest.raises(ValueError, match=f"{name} moves the pixels but not the boxes .*augment.boxes"):
            data.setup("fit")
    else:
        assert len(record(data).seen["train"]) == 1


def test_all_of_them_are_chosen_by_the_datamodule_and_seeded_by_its_loader():
    runs = [
        record(Synthetic(image_shape=(3, 16, 16), batch_size=8, augment=[*EVERY.values()], seed=seed)).seen["train"]
        for seed in (1, 1, 2)
    ]
    same, other = ([torch.equal(a.image, b.image) for a, b in zip(runs[0], run, strict=True)] for run in runs[1:])
    assert all(same)
    assert not any(other)


def test_constants_are_made_once_for_each_device_and_type_and_can_be_used_in_training():
    with torch.inference_mode():
        first = constant((0.1, 0.2), torch.zeros(1))
    assert constant((0.1, 0.2), torch.ones(7)) is first
    assert constant((0.1, 0.2), torch.ones(1, dtype=torch.float64)).dtype == torch.float64
    x = torch.ones(2, requires_grad=True)
    (x / first).sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([10.0, 5.0]))


def test_an_augmentation_without_a_definition_cannot_be_made():
    with pytest.raises(TypeError, match=r"abstract method '?__call__"):
        Augmentation()
    with pytest.raises(TypeError, match=r"abstract method '?image"):
        ImageAugmentation()
