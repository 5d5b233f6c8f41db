"""Adding up many numbers in 16 bits, and why sums and weights are kept in 32.

    python -m experiments.studies.sixteen_bit_accumulation [FOLDER]

writes sixteen_bit_accumulation.png and sixteen_bit_accumulation.csv. Left: counting in ones. Once the sum is so large
that the next number of the format is 2 away, adding 1 gives the middle, which rounds to the even neighbor, and the sum
stands still: at 2048 in float16, at 256 in bfloat16 (and at 16 777 216 in float32). Middle, and in the table: the error
of dot products of numbers between 0 and 1, stored in float16 or bfloat16, by what holds the sum. A 16-bit sum that is
added up in blocks, each from zero ("chunk-based accumulation", Wang et al. 2018, "Training Deep Neural Networks with
8-bit Floating Point Numbers"), or by halves stays near the 32-bit one. Right: a weight of 1 that is to
fall by 0.0001 at each step: the weight in 16 bits does not move, as the change is less than half of the spacing of its
numbers; with a float32 copy it does (Micikevicius et al. 2018, "Mixed Precision Training", section 3.1). All additions
are torch's own in the format.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from callbacks.figures.style import BLUE, GRAY, GREEN, ORANGE, PURPLE, VERMILION
from experiments.studies import Row, panels, publish, run

FORMATS = {"float16": torch.float16, "bfloat16": torch.bfloat16}
COLORS = {"float16": (VERMILION, -14), "bfloat16": (PURPLE, 6), "float32": (GREEN, 6)}  # and where a name is
LENGTHS, DRAWS, BLOCK = tuple(2**k for k in range(4, 15)), 50, 64


def one_by_one(x: Tensor) -> Tensor:
    """Sum over the last axis from its first number to its last, rounded to the type of x at each step."""
    total = torch.zeros_like(x[..., 0])
    for column in x.unbind(-1):
        total = total + column
    return total


def in_blocks(x: Tensor) -> Tensor:
    """The sums of blocks of BLOCK numbers, and then their sum."""
    return one_by_one(torch.stack([one_by_one(block) for block in x.split(BLOCK, -1)], -1))


def by_halves(x: Tensor) -> Tensor:
    """The halves are added, then the halves of the result, and so on: pairwise summation; a power of two of numbers."""
    while x.size(-1) > 1:
        x = torch.add(*x.chunk(2, -1))
    return x[..., 0]


SUMS: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {  # how to add up, and whether in float32
    "one by one": (one_by_one, False),
    f"in blocks of {BLOCK}": (in_blocks, False),
    "by halves": (by_halves, False),
    "float32 sum": (one_by_one, True),
}


def products(length: int, dtype: torch.dtype, draws: int) -> Tensor:
    """(draws, length) float64: exact products of numbers in 0..1 that are stored in 16 bits."""
    draw = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, draws, length, generator=draw).to(dtype).double()
    return a * b


def error(length: int, dtype: torch.dtype, how: str, draws: int) -> float:
    """Mean relative error of the dot products; the products are rounded to the format of the sum."""
    exact = products(length, dtype, draws)
    add, wide = SUMS[how]
    total = add(exact.to(torch.float32 if wide else dtype)).double()
    return ((total - exact.sum(-1)) / exact.sum(-1)).abs().mean().item()


def table(draws: int) -> list[Row]:
    rows: list[Row] = []
    for name, dtype in FORMATS.items():
        for length in LENGTHS:
            errors = {f"{how}: error": error(length, dtype, how, draws) for how in SUMS}
            rows.append({"format": name, "length": length, **errors})
    return rows


def count(dtype: torch.dtype, steps: int) -> Tensor:
    """(steps,) The running sum of ones."""
    total, sums = torch.zeros((), dtype=dtype), []
    for _ in range(steps):
        total = total + 1
        sums.append(total)
    return torch.stack(sums)


def weights(dtype: torch.dtype, steps: int, change: float = 1e-4) -> Tensor:
    """(steps,) A weight of 1 that falls by `change` at each step."""
    weight, values = torch.ones((), dtype=dtype), []
    for _ in range(steps):
        weight = weight - torch.tensor(change, dtype=dtype)
        values.append(weight)
    return torch.stack(values)


def draw(rows: list[Row]) -> Figure:
    titles = ["The sum of n ones", "Dot products of n numbers in 0..1", "A weight that is to fall by 0.0001"]
    figure, (left, middle, right) = panels("Accumulating in 16 bits", 1, 3, (15, 5), titles)
    for name, (color, shift) in COLORS.items():
        dtype, steps = getattr(torch, name), 3000
        sums, values = count(dtype, steps), weights(dtype, steps)
        left.plot(range(1, steps + 1), sums.float(), color=color, linewidth=2)
        label = f"{name}: {sums[-1].item():g}" if name in FORMATS else name
        left.annotate(label, (steps, sums[-1].item()), (0, shift), textcoords="offset points", ha="right", color=color)
        width, alpha = (6, 0.5) if name == "bfloat16" else (2, 1)
        right.plot(range(1, steps + 1), values.float(), color=color, linewidth=width, alpha=alpha, label=name)
    left.set(xlabel="n", xlim=(0, 3020), ylim=(0, 3300))
    for name in FORMATS:
        lines = [row for row in rows if row["format"] == name]
        for how, marker, color in zip(SUMS, "os^D", (VERMILION, ORANGE, BLUE, GREEN), strict=True):
            errors = [float(line[f"{how}: error"] or 0) for line in lines]
            style = {"linestyle": "-" if name == "float16" else ":", "color": color, "marker": marker, "markersize": 4}
            middle.loglog(LENGTHS, errors, label=how if name == "float16" else None, **style)
    middle.text(0.97, 0.5, "solid float16, dotted bfloat16", transform=middle.transAxes, ha="right", color=GRAY, size=9)
    middle.set(xlabel="n", ylabel="relative error")
    middle.legend(frameon=False, loc="upper left")
    right.set(xlabel="step", ylabel="weight", ylim=(0.65, 1.05))
    right.legend(frameon=False, loc="lower left")
    return figure


def main(folder: Path, draws: int = DRAWS) -> None:
    rows = table(draws)
    publish(folder, "sixteen_bit_accumulation", draw(rows), rows)


if __name__ == "__main__":
    run(main, __doc__)
