"""Which interval of an image each unit along one axis of a map sees, exactly; what receptive fields are computed with.

Araujo, Norris and Sim 2019, "Computing Receptive Fields of Convolutional Neural Networks", Distill, give recurrences
for the size and the start of a field. They hold where all units have fields of one size at equal distances. Here the
intervals themselves are followed, so that paths of different padding, dilation and stride join exactly, and fields that
change from unit to unit, as after transposed convolution, have their place.
"""

from collections.abc import Callable, Iterable
from fractions import Fraction
from math import gcd, lcm
from typing import NamedTuple

Interval = tuple[int, int]  # first and last pixel


class Piece(NamedTuple):
    """Intervals that repeat: unit i sees `table[i % len(table)]`, moved by `shift` pixels for each turn of the table.

    Most tables have one entry, and `shift` is the distance of neighboring units. None stands for seeing nothing.
    """

    table: tuple[Interval | None, ...]
    shift: int

    def interval(self, i: int) -> Interval | None:
        turn, place = divmod(i, len(self.table))
        entry = self.table[place]
        return None if entry is None else (entry[0] + turn * self.shift, entry[1] + turn * self.shift)

    @property
    def jump(self) -> Fraction:
        return Fraction(self.shift, len(self.table))


class Axis(NamedTuple):
    """What the units along one axis of a map see of that axis of the image: for each unit the hull of all pieces.

    Paths whose units move over the image at the same speed are one piece. Others stay apart, such as a map and its
    average over the image that scales it, of which each unit sees the same.

    >>> pixels().take(lambda i: range(2 * i - 1, 2 * i + 2), shift=2).interval(5)  # of a 3x3 convolution of stride 2
    (9, 11)
    """

    pieces: tuple[Piece, ...]

    def interval(self, i: int) -> Interval | None:
        return hull(piece.interval(i) for piece in self.pieces)

    def intervals(self, count: int) -> list[Interval | None]:
        return [self.interval(i) for i in range(count)]

    def take(self, window: Callable[[int], Iterable[int]], period: int = 1, shift: int = 1) -> "Axis":
        """The axis of an operation whose unit i reads the units `window(i)`.

        Args:
            window: of any integer, as units beyond the border have their places, too.
            period, shift: `window(i + period)` is `window(i)` moved by `shift`.
        """
        taken = []
        for piece in self.pieces:
            turns = len(piece.table) // gcd(len(piece.table), shift)  # until the moved window meets the same entries
            table = tuple(hull(piece.interval(place) for place in window(i)) for i in range(period * turns))
            taken.append(Piece(table, piece.shift * (shift * turns // len(piece.table))))
        return merged(taken)

    def at(self, i: int) -> "Axis":
        """An axis on which each unit sees what unit i sees on this one."""
        return constant(self.interval(i))

    def field(self, count: int) -> int:
        """The length of the longest interval of the first `count` units."""
        different = len(self.pieces[0].table) if len(self.pieces) == 1 else count
        return max(last - first + 1 for first, last in (x or (0, -1) for x in self.intervals(min(count, different))))

    @property
    def jump(self) -> float:
        """The mean distance of neighboring units, of the fastest piece."""
        jump = max((piece.jump for piece in self.pieces), key=abs)
        return int(jump) if jump.denominator == 1 else float(jump)


def pixels() -> Axis:
    """The axis of the image itself: unit i sees pixel i."""
    return Axis((Piece(((0, 0),), 1),))


def constant(interval: Interval | None) -> Axis:
    """An axis on which each unit sees the same."""
    return Axis((Piece((interval,), 0),))


def hull(intervals: Iterable[Interval | None]) -> Interval | None:
    """The smallest interval that holds all; None of nothing.

    >>> hull([(0, 2), None, (5, 5)])
    (0, 5)
    """
    known = [interval for interval in intervals if interval is not None]
    return (min(first for first, _ in known), max(last for _, last in known)) if known else None


def merged(pieces: Iterable[Piece]) -> Axis:
    """Pieces as one axis: those of the same jump become one, with the shortest table that says the same."""
    by_jump: dict[Fraction, list[Piece]] = {}
    for piece in pieces:
        by_jump.setdefault(piece.jump, []).append(piece)
    joined = []
    for jump, group in sorted(by_jump.items()):
        count = lcm(*(len(piece.table) for piece in group))
        table = tuple(hull(piece.interval(i) for piece in group) for i in range(count))
        for n in (n for n in range(1, count + 1) if count % n == 0 and (jump * n).denominator == 1):
            shorter = Piece(table[:n], int(jump * n))
            if all(shorter.interval(i) == entry for i, entry in enumerate(table)):
                joined.append(shorter)
                break
    return Axis(tuple(joined))
