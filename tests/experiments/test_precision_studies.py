"""Rounding, sums in 16 bits, mixed precision: the facts that the studies of precision show."""

import math
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.images.digits import Digits
from experiments.studies import fused_multiply_add, mixed_precision, sixteen_bit_accumulation
from helpers import quiet_trainer
from zoo.classification.resnet_mini import ResNetMini

NUMBERS = st.floats(-1e4, 1e4, allow_nan=False, width=16)


@given(value=st.floats(2**-10, 2**15, width=64), negative=st.booleans())
@settings(max_examples=50, deadline=None)
def test_rounding_is_that_of_the_formats(value, negative):
    value = -value if negative else value
    assert float(fused_multiply_add.rounded(Fraction(value), 11)) == float(np.float16(value))
    assert float(fused_multiply_add.rounded(Fraction(value), 24)) == float(np.float32(value))
    near = fused_multiply_add.rounded(Fraction(value), 24)  # torch converts to bfloat16 from float32
    assert float(fused_multiply_add.rounded(near, 8)) == torch.tensor(float(near)).bfloat16().item()


def test_ties_go_to_the_even_neighbor():
    rounded = [int(fused_multiply_add.rounded(Fraction(n), 11)) for n in (2048, 2049, 2050, 2051, 4098, 4102)]
    assert rounded == [2048, 2048, 2050, 2052, 4096, 4104]


@given(a=NUMBERS, b=NUMBERS, c=NUMBERS)
@settings(max_examples=50, deadline=None)
def test_fused_rounds_once_and_separate_twice(a, b, c):
    exact = [Fraction(x) for x in (a, b, c)]
    once = fused_multiply_add.fused(*exact, 11)
    nearest = Fraction(a) * Fraction(b) + Fraction(c)
    if nearest:
        assert abs(once - nearest) <= fused_multiply_add.unit(nearest, 11) / 2
    product = np.float64(a) * np.float64(b)  # exact: 22 bits
    if 2**-10 < abs(product) < 2**15 and 2**-10 < abs(float(np.float16(product)) + c) < 2**15:
        expected = np.float16(product) + np.float16(c)
        assert float(fused_multiply_add.separate(*exact, 11)) == float(expected)


def test_fused_finds_the_rounding_error_of_a_product():
    a = 1 + Fraction(1, 1024)
    product = fused_multiply_add.rounded(a * a, 11)
    assert product == 1 + Fraction(1, 512)
    assert fused_multiply_add.fused(a, a, -product, 11) == Fraction(1, 2**20)
    assert fused_multiply_add.separate(a, a, -product, 11) == 0
    rows = fused_multiply_add.rows_of("float16", 11, 50)
    assert [row["not nearest"] > 0 for row in rows] == [True, False, True, False]
    assert rows[1]["largest error, ulp"] <= 0.5 < rows[0]["largest error, ulp"]
    assert rows[3]["largest error, ulp"] == 0


@pytest.mark.parametrize(("dtype", "still"), [(torch.float16, 2048), (torch.bfloat16, 256)])
def test_a_sum_of_ones_stands_still(dtype, still):
    sums = sixteen_bit_accumulation.count(dtype, still + 40)
    assert sums[:still].tolist() == list(range(1, still + 1))
    assert set(sums[still:].tolist()) == {still}
    top = torch.tensor(float(still), dtype=dtype)
    assert (top + 2).item() == still + 2


def test_a_float32_sum_stands_still_where_the_study_says():
    assert (torch.tensor(2.0**24) + 1).item() == 16_777_216


def test_a_16_bit_weight_does_not_take_a_small_step():
    for dtype in (torch.float16, torch.bfloat16):
        assert set(sixteen_bit_accumulation.weights(dtype, 50).tolist()) == {1.0}
    assert sixteen_bit_accumulation.weights(torch.float32, 50)[-1].item() == pytest.approx(1 - 50e-4, abs=1e-5)


def test_all_ways_to_add_give_the_sum_where_it_is_exact():
    x = torch.randint(0, 4, (3, 256), generator=torch.Generator().manual_seed(0)).half()  # sums below 2048
    for add, _ in sixteen_bit_accumulation.SUMS.values():
        assert torch.equal(add(x), x.sum(-1))


def test_blocks_halves_and_float32_sums_have_smaller_errors():
    for dtype in (torch.float16, torch.bfloat16):
        errors = [sixteen_bit_accumulation.error(2048, dtype, how, 5) for how in sixteen_bit_accumulation.SUMS]
        one_by_one, blocks, halves, wide = errors
        assert one_by_one > 10 * blocks > 10 * halves > 100 * wide
    assert sixteen_bit_accumulation.error(64, torch.float16, "one by one", 5) < 2e-3


# Mixed precision


def test_16_bits_halve_what_is_saved_for_the_backward_pass():
    data = Digits(val_size=0)
    wide, bf16, fp16 = (mixed_precision.saved_bytes(dtype, data) for dtype in (None, torch.bfloat16, torch.float16))
    assert bf16 == fp16
    assert 0.49 < bf16 / wide < 0.52  # the loss is not halved


def test_saved_bytes_are_those_of_a_real_forward_pass():
    data, saved = Digits(val_size=0), {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        saved[x.untyped_storage().data_ptr()] = x.untyped_storage()
        return x

    totals = []
    for batch in (2, 5):
        saved.clear()
        module = mixed_precision.model(data)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            loss = module.loss(module(torch.rand(batch, 1, 8, 8)), torch.zeros(batch, dtype=torch.long), "train")
        totals.append(sum(storage.nbytes() for storage in saved.values()))
        del loss
    assert mixed_precision.saved_bytes(None, data) == (totals[1] - totals[0]) / 3


def test_the_loss_stays_float32_in_mixed_precision():
    """Also with logits so large that bfloat16 has no fractions left."""
    seen = {}

    class Looks(ResNetMini):
        def loss(self, outputs, label, split):
            loss = super().loss(100 + outputs, label, split)
            seen[split] = outputs.dtype, loss.dtype
            reference = torch.nn.functional.cross_entropy((100 + outputs).double(), label)
            assert loss.item() == pytest.approx(reference.item(), rel=1e-5)
            return loss

    module = Looks(10, 1, widths=(4, 4, 4), optimizer=partial(torch.optim.SGD, lr=0.01))
    trainer = quiet_trainer(precision="bf16-mixed", max_steps=1, limit_val_batches=1, num_sanity_val_steps=1)
    trainer.fit(module, datamodule=Digits(batch_size=4, eval_batch_size=4))
    assert seen == dict.fromkeys(("train", "val"), (torch.bfloat16, torch.float32))
    assert {p.dtype for p in module.parameters()} == {torch.float32}


def test_a_precision_without_arithmetic_is_named_instead_of_timed(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(mixed_precision, "CUDA", False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    assert mixed_precision.missing("32-true") == ""
    assert "AVX512-BF16" in mixed_precision.missing("bf16-mixed")
    assert "CUDA" in mixed_precision.missing("16-mixed")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    assert mixed_precision.missing("bf16-mixed") == ""


def test_the_clock_starts_after_the_first_steps(monkeypatch):
    data = Digits(batch_size=32, val_size=0)
    row, losses = mixed_precision.train("32-true", data, 3)
    assert len(losses) == 3
    assert all(math.isfinite(loss) for loss in losses)
    assert row["images/s"] == pytest.approx(32_000 / row["ms a step"])
    assert 0 <= row["test accuracy, %"] <= 100
