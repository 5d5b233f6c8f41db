"""How a metric is plotted. Each module defines it for its own metrics, in its attribute `axes`."""

from typing import NamedTuple


class Axis(NamedTuple):
    """How a metric is plotted. One that is known by its name only gets `Axis(name, name)`.

    title: heading of the plot.
    label: of the axis, with the unit.
    text: a value as text, a format string.
    factor: by which values are multiplied first, such as 100 for per cent.
    better: "max", "min", or "" where neither is.
    part_of: the metric of which this is a part, such as a term of a loss or the value of one class; "" if of none. All
        parts of a metric share a panel.
    """

    title: str
    label: str
    text: str = "{:.4g}"
    factor: float = 1.0
    better: str = ""
    part_of: str = ""


def percent_axis(title: str, label: str = "accuracy", better: str = "max") -> Axis:
    """The axis of a share, in per cent.

    >>> percent_axis("Accuracy").label
    'accuracy in %'
    """
    return Axis(title, f"{label} in %", "{:.2f} %", 100, better)


def loss_axis(label: str, title: str = "Loss") -> Axis:
    """The axis of a loss; the label gives its unit."""
    return Axis(title, label, "{:.3f}", 1, "min")
