"""Fused multiply-add: a * b + c with one rounding at the end instead of two.

    python -m experiments.studies.fused_multiply_add [FOLDER]

writes fused_multiply_add.png and fused_multiply_add.csv. A number format of p significant bits is emulated by exact
fractions, rounded to the nearest number with ties to even; its range is unlimited. Left: (x - 1)^3 near its root,
multiplied out and computed by Horner's rule in the 11 bits of float16: beside the root little but rounding is left, and
one rounding a step leaves less than two. Right: the error of dot products of random numbers, with their products
rounded before they are added, fused, and, as tensor cores have it, fused with a sum of 24 bits (float32). Fusing saves
the rounding of the products, but the sum is rounded at every step either way, so its error grows with the length: the
wider sum matters far more. The table has the share of a * b + c that is not the nearest number to the exact result, and
the errors, in units of the last place (ulp) of the result: for random numbers with c of the size of a * b, and where c
is -a * b rounded, so that the exact result is the rounding error of the product: fused, it is found without any error,
else lost completely (Muller et al. 2018, "Handbook of Floating-Point Arithmetic", chapter 4).
"""

import random
import statistics
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from matplotlib.figure import Figure

from callbacks.figures.style import BLACK, BLUE, GREEN, VERMILION
from experiments.studies import Row, panels, publish, run

FORMATS = {"bfloat16": 8, "float16": 11, "float32": 24}  # significant bits, with the one that is not stored
LENGTHS, DRAWS = (2, 4, 8, 16, 32, 64, 128, 256, 512), 10
Operation = Callable[[Fraction, Fraction, Fraction, int], Fraction]


def unit(x: Fraction, bits: int) -> Fraction:
    """The spacing of the numbers of so many bits around x: the unit of its last place."""
    exponent = abs(x.numerator).bit_length() - x.denominator.bit_length()
    exponent -= abs(x) < Fraction(2) ** exponent  # now 2^exponent <= |x| < 2^(exponent + 1)
    return Fraction(2) ** (exponent - bits + 1)


def rounded(x: Fraction, bits: int) -> Fraction:
    """The nearest number of so many significant bits; of two, the even one.

    >>> rounded(Fraction(2049), 11), rounded(Fraction(2051), 11)
    (Fraction(2048, 1), Fraction(2052, 1))
    """
    return round(x / unit(x, bits)) * unit(x, bits) if x else x


def separate(a: Fraction, b: Fraction, c: Fraction, bits: int) -> Fraction:
    return rounded(rounded(a * b, bits) + c, bits)


def fused(a: Fraction, b: Fraction, c: Fraction, bits: int) -> Fraction:
    return rounded(a * b + c, bits)


def draw_numbers(count: int, bits: int, seed: int = 0) -> list[Fraction]:
    """Normal numbers, rounded to the format."""
    draw = random.Random(seed)
    return [rounded(Fraction(draw.gauss()), bits) for _ in range(count)]


def rows_of(name: str, bits: int, count: int) -> list[Row]:
    """The lines of the table for a format."""
    a, b, c = (draw_numbers(count, bits, seed) for seed in range(3))
    cases = {"random": c, "-a * b rounded": [-rounded(x * y, bits) for x, y in zip(a, b, strict=True)]}
    rows: list[Row] = []
    for case, third in cases.items():
        for how, compute in {"separate": separate, "fused": fused}.items():
            errors = []
            for x, y, z in zip(a, b, third, strict=True):
                if exact := x * y + z:
                    errors.append(float(abs(compute(x, y, z, bits) - exact) / unit(exact, bits)))
            line: Row = {"format": name, "bits": bits, "c": case, "operation": how}
            wrong = sum(error > 0.5 for error in errors) / len(errors)
            rows.append(line | Row({"not nearest": wrong, "mean error, ulp": statistics.fmean(errors)}))
            rows[-1]["largest error, ulp"] = max(errors)
    return rows


def cube(x: Fraction, step: Operation, bits: int) -> Fraction:
    """((x - 3) x + 3) x - 1 by Horner's rule."""
    value = rounded(x - 3, bits)
    for coefficient in (3, -1):
        value = step(value, x, Fraction(coefficient), bits)
    return value


def dot_errors(step: Operation, bits: int, sum_bits: int, draws: int) -> list[float]:
    """Mean absolute errors of dot products of the LENGTHS."""
    errors: list[list[float]] = [[] for _ in LENGTHS]
    for seed in range(draws):
        a, b = (draw_numbers(max(LENGTHS), bits, 2 * seed + i) for i in range(2))
        total = exact = Fraction(0)
        for n, (x, y) in enumerate(zip(a, b, strict=True), 1):
            total, exact = step(x, y, total, sum_bits), exact + x * y
            if n in LENGTHS:
                errors[LENGTHS.index(n)].append(float(abs(total - exact)))
    return [statistics.fmean(values) for values in errors]


def draw(draws: int) -> Figure:
    titles = ["$x^3 - 3x^2 + 3x - 1$ in float16", "Dot products of normal numbers in float16"]
    figure, (left, right) = panels("Multiply and add, with two roundings or one", 1, 2, (12, 5), titles)
    xs = [1 + Fraction(k, 1024) for k in range(-120, 121, 2)]  # numbers that float16 has
    places = [float(x) for x in xs]
    operations: list[tuple[Operation, str, str]] = [(separate, VERMILION, "separate"), (fused, BLUE, "fused")]
    for step, color, label in operations:
        left.plot(places, [float(cube(x, step, 11)) for x in xs], color=color, linewidth=1.3, label=label)
    left.plot(places, [float((x - 1) ** 3) for x in xs], color=BLACK, linewidth=1.8, label="exact")
    left.set(xlabel="x", ylabel="value")
    left.legend(frameon=False, loc="upper left")
    sums: list[tuple[str, Operation, int, str]] = [
        ("products rounded, sum of 11 bits", separate, 11, VERMILION),
        ("fused, sum of 11 bits", fused, 11, BLUE),
        ("fused, sum of 24 bits", fused, 24, GREEN),
    ]
    for label, step, sum_bits, color in sums:
        right.loglog(LENGTHS, dot_errors(step, 11, sum_bits, draws), "o-", color=color, markersize=4, label=label)
    right.set_xscale("log", base=2)
    right.set(xlabel="numbers in a vector", ylabel="mean error")
    right.legend(frameon=False, loc="center left")
    return figure


def main(folder: Path, draws: int = DRAWS, count: int = 1000) -> None:
    rows = [row for name, bits in FORMATS.items() for row in rows_of(name, bits, count)]
    publish(folder, "fused_multiply_add", draw(draws), rows)


if __name__ == "__main__":
    run(main, __doc__)
