"""Convolution, pooling, color, gray levels, attention: the facts that the studies of images show, by brute force."""

import itertools
import math

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from experiments.studies import (
    attention_by_hand,
    augmentation_speed,
    color_channels,
    convolution_as_matrix,
    edge_kernels,
    fourier_square_wave,
    layers_needed,
    normalization_equalization,
    pooling_invariance,
    stride_coverage,
)


def test_kernels_answer_to_what_they_are_named_after():
    rows = {name: edge_kernels.row(name, kernel) for name, kernel in edge_kernels.KERNELS.items()}
    for name in ("vertical line", "horizontal line", "diagonal line"):
        others = [abs(rows[name][pattern]) for pattern in edge_kernels.patterns() if pattern != name]
        assert rows[name][name] == 6 > max(others)
    for name in ("vertical edge", "horizontal edge"):
        assert rows[f"{name} (Sobel)"][name] == 4
    assert rows["vertical edge (Sobel)"]["horizontal edge"] == rows["horizontal edge (Sobel)"]["vertical edge"] == 0
    assert rows["diagonal edge"]["diagonal line"] == 0
    for row in rows.values():
        assert row["uniform"] == pytest.approx(row["sum"], abs=1e-6)
    assert rows["blur"]["sum"] == rows["sharper"]["sum"] == 1
    assert [name for name, row in rows.items() if row["rank"] == 1][:2] == [
        "vertical edge (Sobel)", "horizontal edge (Sobel)",
    ]  # fmt: skip


def test_the_kernels_of_sobel_are_those_of_opencv():
    image = edge_kernels.photograph()
    for name, dx, dy in (("vertical edge (Sobel)", 1, 0), ("horizontal edge (Sobel)", 0, 1)):
        theirs = cv2.Sobel(image.numpy(), cv2.CV_32F, dx, dy, ksize=3)[1:-1, 1:-1]
        np.testing.assert_allclose(edge_kernels.respond(edge_kernels.KERNELS[name], image), theirs, atol=1e-5)


@pytest.mark.parametrize("scheme", layers_needed.SCHEMES)
def test_sizes_and_fields_are_those_of_real_layers(scheme):
    size = 60
    chosen = layers_needed.layers(scheme, size)
    after = layers_needed.states(chosen, size)
    net = layers_needed.modules(chosen, channels=1, inputs=1).double()
    for layer in net:
        if isinstance(layer, nn.Conv2d):
            nn.init.ones_(layer.weight)
    averages = nn.Sequential(*(nn.AvgPool2d(2) if isinstance(layer, nn.MaxPool2d) else layer for layer in net))
    image = torch.ones(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    maps = averages(image)
    assert maps.shape[-1] == after[-1].size
    (gradient,) = torch.autograd.grad(maps[0, 0, 0, 0], image)
    seen = gradient[0, 0].nonzero()
    assert (seen.max(0).values + 1).tolist() == [after[-1].field] * 2


def test_400_pixels_take_199_layers_or_27_and_4():
    rows = {row["scheme"]: row for row in map(layers_needed.row, layers_needed.SCHEMES)}
    plain, pooled = rows["3x3"], rows["3x3, 2x2 pooling after every 5"]
    assert (plain["convolutions"], plain["size left"], plain["receptive field"]) == (199, 2, 399)
    assert (pooled["convolutions"], pooled["poolings"], pooled["size left"]) == (27, 4, 1)
    sizes = [state.size for state in layers_needed.states(layers_needed.layers("3x3, 2x2 pooling after every 5"))]
    assert sizes[:13] == [400, 398, 396, 394, 392, 390, 195, 193, 191, 189, 187, 185, 92]
    assert sizes[-8:] == [15, 13, 11, 9, 7, 5, 3, 1]


@pytest.mark.parametrize("shape", [(4, 4), (5, 9)])
@pytest.mark.parametrize("method", convolution_as_matrix.METHODS)
def test_all_ways_give_the_convolution(method, shape):
    draw = torch.Generator().manual_seed(1)
    image, kernel = torch.randn(shape, generator=draw), torch.randn(3, 3, generator=draw)
    expected = torch.stack(
        [
            torch.stack([(image[top : top + 3, left : left + 3] * kernel).sum() for left in range(shape[1] - 2)])
            for top in range(shape[0] - 2)
        ]
    )
    torch.testing.assert_close(convolution_as_matrix.METHODS[method][0](image, kernel), expected)


def test_the_transposed_matrix_is_the_transposed_convolution():
    draw = torch.Generator().manual_seed(1)
    small, kernel = torch.randn(3, 5, generator=draw), torch.randn(3, 3, generator=draw)
    matrix = convolution_as_matrix.matrix_of(kernel, 5, 7)
    theirs = F.conv_transpose2d(small[None, None], kernel[None, None])[0, 0]
    torch.testing.assert_close((matrix.T @ small.flatten()).view(5, 7), theirs)


def test_the_peak_of_the_fourier_series_stays_and_the_error_falls():
    assert fourier_square_wave.gibbs_limit() == pytest.approx(0.178980, abs=1e-5)
    few, many = fourier_square_wave.row(25), fourier_square_wave.row(100)
    assert many["series: peak"] == pytest.approx(fourier_square_wave.gibbs_limit(), abs=1e-3)
    assert many["series: peak at"] == pytest.approx(1 / 400, abs=1e-4)
    assert many["means: peak"] < 0
    for kind in ("series", "means"):
        assert few[f"{kind}: squared error"] / many[f"{kind}: squared error"] == pytest.approx(4, rel=0.02)
    # Parseval: the wave has the power 1, each sine half the square of its height
    assert few["series: squared error"] == pytest.approx(
        1 - sum(8 / (math.pi * k) ** 2 for k in range(1, 50, 2)), rel=1e-3
    )


def test_the_mean_of_the_sums_is_fejers():
    x = torch.linspace(0, 1, 50, dtype=torch.float64)
    sums = torch.stack([fourier_square_wave.series(x, (n + 1) // 2) for n in range(10)])  # frequencies up to n
    torch.testing.assert_close(fourier_square_wave.series(x, 5, mean=True), sums.mean(0))


@pytest.mark.parametrize(("size", "kernel", "stride"), [(5, 3, 1), (9, 3, 2), (11, 4, 3)])
def test_coverage_is_counted_right(size, kernel, stride):
    read, places = torch.zeros(size, size), range(0, size - kernel + 1, stride)
    for top, left in itertools.product(places, places):
        read[top : top + kernel, left : left + kernel] += 1
    assert torch.equal(stride_coverage.reads(size, kernel, stride), read)
    covered = (len(places) - 1) * stride + kernel
    assert torch.equal(stride_coverage.writes(len(places), kernel, stride), read[:covered, :covered])


def test_the_counts_of_the_course_and_where_there_is_no_checkerboard():
    assert (stride_coverage.reads(5, 3, 1) == 9).sum() == 1
    assert (stride_coverage.reads(400, 3, 1) == 9).sum() == 396**2
    rows = {row["layer"]: row for row in stride_coverage.table()}
    assert rows["enlarged, then 3x3"]["checkerboard"] == pytest.approx(0, abs=1e-9)
    assert rows["transposed 3x3, stride 2"]["checkerboard"] > 5 * rows["transposed 4x4, stride 2"]["checkerboard"]
    assert rows["transposed 4x4, stride 2"]["least"] == rows["transposed 4x4, stride 2"]["most"] == 4


def test_attention_by_hand_is_that_of_torch():
    x, attention = attention_by_hand.tokens(), attention_by_hand.layer()
    assert x.shape == (9, 512)
    hand, reference = attention_by_hand.by_hand(x, attention), attention_by_hand.of_torch(x, attention)
    for step in ("weights", "output"):
        torch.testing.assert_close(hand[step], reference[step], rtol=1e-4, atol=1e-5)
    for step, result in attention_by_hand.at_once(x, attention).items():
        torch.testing.assert_close(hand[step], result, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(hand["weights"].sum(-1), torch.ones(8, 9))
    torch.testing.assert_close(hand["output"], attention(x[None])[0], rtol=1e-4, atol=1e-5)


def test_the_patches_are_those_of_the_photograph_row_by_row():
    side, patches = attention_by_hand.PATCH, attention_by_hand.patches()
    rows = torch.cat([torch.cat([*line], 1) for line in patches.unflatten(0, (3, 3))])
    assert torch.equal(rows[side : 2 * side, 2 * side :], patches[5])
    assert rows.shape == (3 * side, 3 * side, 3)


def test_color_spaces_are_those_of_opencv():
    rgb = torch.rand(20, 30, 3, generator=torch.Generator().manual_seed(0))
    lab = cv2.cvtColor(rgb.numpy(), cv2.COLOR_RGB2LAB)
    np.testing.assert_allclose(color_channels.to_lab(rgb), lab, atol=0.5)
    y, cr, cb = cv2.split(cv2.cvtColor(rgb.numpy(), cv2.COLOR_RGB2YCrCb))
    np.testing.assert_allclose(color_channels.to_ycbcr(rgb), np.stack([y, cb - 0.5, cr - 0.5], -1), atol=2e-3)
    torch.testing.assert_close(color_channels.from_ycbcr(color_channels.to_ycbcr(rgb)), rgb)
    white = color_channels.to_lab(torch.ones(1, 3))
    torch.testing.assert_close(white, torch.tensor([[100.0, 0.0, 0.0]]), rtol=0, atol=0.02)


def test_the_photograph_needs_its_brightness_more_than_its_color():
    rows = {row["channel"]: row for row in color_channels.table()}
    assert rows["Y, brightness"]["PSNR, dB"] < rows["Cb, blue - Y"]["PSNR, dB"] - 10
    assert min(rows[name]["correlation with Y"] for name in ("red", "green", "blue")) > 0.95


def test_a_change_of_nothing_changes_nothing_and_pooling_bears_a_pixel():
    image = pooling_invariance.photograph()
    height, width = image.shape
    top, left = (height - pooling_invariance.SIDE) // 2, (width - pooling_invariance.SIDE) // 2
    middle = image[top : top + pooling_invariance.SIDE, left : left + pooling_invariance.SIDE]
    torch.testing.assert_close(pooling_invariance.changed(image, "shift", 0), middle, rtol=0, atol=1e-4)
    moved = pooling_invariance.changed(image, "shift", 4)
    torch.testing.assert_close(moved[:, 4:], middle[:, :-4], rtol=0, atol=1e-4)
    likeness = {pooling: pooling_invariance.likeness(pooling, "shift", 1) for pooling in pooling_invariance.POOLINGS}
    assert min(likeness["2x2 maximum, twice"], likeness["2x2 average, twice"]) > 0.9
    assert max(likeness["none"], likeness["every fourth pixel"]) < 0.5


def test_a_shift_by_the_stride_moves_pooled_features_by_a_pixel():
    image = pooling_invariance.photograph()
    before, after = (
        pooling_invariance.features(pooling_invariance.changed(image, "shift", n))[:, :-2, :-2] for n in (0, 4)
    )
    for pool, _ in list(pooling_invariance.POOLINGS.values())[1:]:
        torch.testing.assert_close(pool(after)[..., 1:], pool(before)[..., :-1], rtol=0, atol=1e-2)


def test_gray_levels_are_stretched_by_a_line_and_equalized_as_by_opencv():
    image = normalization_equalization.original()
    assert (image.min(), image.max()) == (50, 180)
    stretched = normalization_equalization.stretch(torch.tensor([[50, 180, 115]], dtype=torch.uint8))
    assert stretched.tolist() == [[0, 255, 128]]
    theirs = cv2.equalizeHist(image.numpy()).astype(int)
    assert np.abs(normalization_equalization.equalize(image).numpy().astype(int) - theirs).max() <= 1
    rows = {name: normalization_equalization.row(name, x) for name, x in normalization_equalization.versions().items()}
    assert rows["stretched"]["correlation"] == pytest.approx(1, abs=1e-4)
    assert rows["equalized"]["correlation"] < 0.95
    assert rows["equalized"]["from even"] < 0.02 < 0.2 < rows["stretched"]["from even"]
    assert rows["equalized"]["levels"] < rows["original"]["levels"] == rows["stretched"]["levels"]
    normalized = normalization_equalization.normalize(image)
    assert (normalized.mean().item(), normalized.std(correction=0).item()) == pytest.approx((0, 1), abs=1e-5)


@pytest.mark.parametrize("library", augmentation_speed.LIBRARIES)
def test_only_torchvisions_batches_share_one_draw(library):
    row = augmentation_speed.row(library, "crop, padding 4", 0.0)
    assert (row["outcomes"] == 1) == (library == "torchvision, a batch")
    assert row["images a second"] > 0
