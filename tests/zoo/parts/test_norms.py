"""The norms written out equal torch's in values, gradients and running statistics, in float32 and bfloat16."""

import copy
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from zoo.classification.plain_conv import PlainConvNet
from zoo.parts.norms import BatchNorm, ChannelNorm, GroupNorm, InstanceNorm, LayerNorm, needs_bias

some = settings(max_examples=40, deadline=None, derandomize=True)
sizes = st.tuples(st.integers(2, 5), st.integers(1, 3).map(lambda n: 4 * n), st.integers(1, 5), st.integers(4, 7))
dtypes, seeds, epsilons = st.sampled_from([torch.float32, torch.bfloat16]), st.integers(0, 10_000), (1e-5, 0.1)
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 2**-7}  # a rounding or two

PAIRS = {  # ours and torch's, from the shape (B, C, H, W) and eps
    "batch": lambda shape, eps: (BatchNorm(shape[1], eps, 0.3), nn.BatchNorm2d(shape[1], eps, 0.3)),
    "instance": lambda shape, eps: (InstanceNorm(shape[1], eps), nn.InstanceNorm2d(shape[1], eps, affine=True)),
    "group": lambda shape, eps: (GroupNorm(shape[1], 4, eps), nn.GroupNorm(4, shape[1], eps)),
    "layer": lambda shape, eps: (LayerNorm(shape[1:], eps, elementwise=True), nn.LayerNorm(shape[1:], eps)),
    "layer, last axis": lambda shape, eps: (LayerNorm(shape[3:], eps, elementwise=True), nn.LayerNorm(shape[3], eps)),
    "layer, one scale": lambda shape, eps: (LayerNorm(shape[1], eps), OneScale(shape, eps)),
    "batch, no affine": lambda shape, eps: (
        BatchNorm(shape[1], eps, affine=False),
        nn.BatchNorm2d(shape[1], eps, affine=False),
    ),
}


class OneScale(nn.Module):
    """torch's layer norm, with one scale and one shift as in lesson 17."""

    def __init__(self, shape, eps):
        super().__init__()
        self.norm = nn.LayerNorm(shape[1:], eps, elementwise_affine=False)
        self.weight, self.bias = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return self.norm(x) * self.weight + self.bias


def drawn(shape, seed: int) -> torch.Tensor:
    """Numbers whose mean is not 0 and whose standard deviation is not 1; both differ from channel to channel."""
    draw = torch.Generator().manual_seed(seed)
    scale, shift = torch.rand(2, shape[1], 1, 1, generator=draw)
    return torch.randn(shape, generator=draw) * (0.5 + scale) + 6 * shift - 3


def close(a: torch.Tensor, b: torch.Tensor, share: float) -> None:
    """Asserts that they differ by at most `share` of the largest number (or of 1)."""
    torch.testing.assert_close(a.float(), b.float(), atol=share * (b.abs().max().item() + 1), rtol=0)


def equal_parameters(ours: nn.Module, theirs: nn.Module, seed: int, dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(seed + 1)
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert a.shape == b.shape
        value = torch.randn(a.shape, generator=draw).to(dtype)
        a.data.copy_(value), b.data.copy_(value)
        assert name in ("weight", "bias")


@pytest.mark.parametrize("kind", PAIRS)
@some
@given(sizes, dtypes, st.sampled_from(epsilons), seeds, st.booleans())
def test_norm_equals_torchs_in_values_gradients_and_buffers(kind, shape, dtype, eps, seed, channels_last):
    # In bfloat16 torch's own error can be several digits of it; the reference is its float32 on the same numbers.
    ours, right = PAIRS[kind](shape, eps)
    equal_parameters(ours, right, seed, dtype)
    ours = ours.to(dtype)
    same = copy.deepcopy(right).to(dtype)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for step in range(2):  # the running statistics of the second batch join those of the first
        x = drawn(shape, seed + step).to(dtype).contiguous(memory_format=layout)
        weights = torch.randn(shape, generator=torch.Generator().manual_seed(seed + 2)).to(dtype)
        results = []
        for norm, kind_of in ((ours, dtype), (right, torch.float32), (same, dtype)):
            inputs = x.to(kind_of).clone().requires_grad_()
            output = norm(inputs)
            gradients = torch.autograd.grad((output * weights).sum(), [inputs, *norm.parameters()])
            assert {output.dtype, *(g.dtype for g in gradients)} == {kind_of}
            results.append([output, *gradients])
        for ours_, right_, same_ in zip(*results, strict=True):
            close(ours_, right_, CLOSE[dtype])
            close(ours_, same_, 20 * CLOSE[dtype])
    for name, value in ours.named_buffers():
        close(value, right.state_dict()[name], CLOSE[dtype])
        right.get_buffer(name).copy_(value)
    close(ours.eval()(x), right.eval()(x.float()), CLOSE[dtype])


def test_batch_norm_evaluates_with_the_statistics_of_training_and_keeps_them():
    norm, x = BatchNorm(4, momentum=1.0), drawn((8, 4, 3, 3), 0)
    norm(x)
    torch.testing.assert_close(norm.running_mean, x.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, x.var((0, 2, 3)))  # the unbiased one
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    alone = norm.eval()(x[:1] + 5)
    assert all(torch.equal(norm.state_dict()[name], value) for name, value in before.items())
    torch.testing.assert_close(norm(torch.cat([x[:1] + 5, x]))[:1], alone)


@pytest.mark.parametrize("make", [BatchNorm, InstanceNorm, GroupNorm, LayerNorm])
@pytest.mark.parametrize("shape", [(6, 8, 4), (6, 8, 3, 2), (6, 8, 2, 2, 2)])
def test_any_number_of_axes_after_the_channels(make, shape):
    x = 3 + 2 * torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = make(8).double()(x)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert abs(y.mean()) < 1e-6
    assert abs(y.std(correction=0) - 1) < 1e-4


@pytest.mark.parametrize("make", [BatchNorm, InstanceNorm, GroupNorm, LayerNorm])
def test_statistics_of_large_bfloat16_numbers_are_float32(make):
    x = 100 + torch.randn(4, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    y = make(8)(x.bfloat16())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), make(8)(x.bfloat16().float()), atol=1e-2, rtol=1e-2)


BIAS = {
    "none": (None, True),
    "ours": (BatchNorm, False),
    "torch's": (nn.BatchNorm2d, False),
    "torch's for many processes": (nn.SyncBatchNorm, False),
    "without affine": (partial(BatchNorm, affine=False), False),
    "instance": (InstanceNorm, False),
    "torch's instance": (nn.InstanceNorm2d, False),
    "layer": (LayerNorm, True),
    "group": (GroupNorm, True),
    "torch's group": (partial(nn.GroupNorm, 4), True),
    "one channel a group": (lambda channels: GroupNorm(channels, groups=channels), False),
    "torch's one channel a group": (lambda channels: nn.GroupNorm(channels, channels), False),
    "of a user": (lambda channels: nn.Identity(), True),
}


@pytest.mark.parametrize("kind", BIAS)
def test_a_layer_has_a_bias_exactly_where_it_changes_the_output_of_the_norm(kind):
    make, expected = BIAS[kind]
    assert needs_bias(None if make is None else make(8)) == expected
    net = PlainConvNet(norm=make)
    assert (net.stem[0].bias is not None) == expected
    assert net.head[0].bias is not None
    if make is None or kind == "torch's for many processes":
        return
    x, shift = drawn((4, 8, 3, 3), 0), torch.arange(8.0).view(1, 8, 1, 1) - 3
    norm = make(8)
    assert torch.allclose(norm(x + shift), norm(x), atol=1e-3) != expected


def test_a_channel_norm_must_define_standardize():
    with pytest.raises(TypeError, match=r"abstract method '?standardize"):
        ChannelNorm(4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GroupNorm(10, groups=4), "10 channels in 4 groups: expected a divisor of 10"),
        (lambda: LayerNorm(8, elementwise=True), r"expected all sizes, such as \(8, H, W\)"),
        (lambda: BatchNorm(1)(torch.zeros(2, 3, 4, 4)), r"BatchNorm got \(2, 3, 4, 4\): expected \(B, 1, \.\.\.\)"),
        (lambda: LayerNorm(1)(torch.zeros(2, 3, 4, 4)), r"LayerNorm got \(2, 3, 4, 4\): expected \(B, 1, \.\.\.\)"),
        (lambda: LayerNorm((3, 4))(torch.zeros(2, 4, 4)), r"expected \(\.\.\., \*\(3, 4\)\)"),
        (lambda: BatchNorm(3)(torch.zeros(1, 3, 1, 1)), "fewer than two values; expected two or more"),
        (lambda: InstanceNorm(3)(torch.zeros(5, 3, 1, 1)), "fewer than two values; expected two or more"),
    ],
)
def test_bad_input_is_one_clear_error(make, message):
    with pytest.raises(ValueError, match=message):
        make()
