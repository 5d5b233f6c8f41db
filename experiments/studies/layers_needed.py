"""How many layers it takes until one unit has seen all of a 400-pixel image.

    python -m experiments.studies.layers_needed [FOLDER]

writes layers_needed.png and layers_needed.csv. A 3x3 convolution without padding takes 2 pixels from the size and adds
twice the jump (the distance, in pixels, of neighboring units) to the receptive field. With nothing else 199 layers lead
to 2 pixels, on which no other fits; with 2x2 max-pooling after every five convolutions, 27 convolutions and 4 poolings,
as pooling doubles the jump and halves what is left (EVA, session 1). Strides do the same without layers of their own;
dilation is the quickest, but leaves the jump at one pixel. The table has the layers, the size that is left, the
receptive field, the parameters with 64 channels everywhere and an input of 3, and the multiplications for an image. A
scheme ends where the next layer does not fit or the field covers the image.
"""

import itertools
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import nn

from callbacks.figures.style import BLUE, GRAY, GREEN, ORANGE, PURPLE, VERMILION
from experiments.studies import Row, panels, publish, run

SIZE, CHANNELS = 400, 64


class Layer(NamedTuple):
    """A convolution, or a pooling."""

    kernel: int
    stride: int = 1
    dilation: int = 1
    pool: bool = False


class State(NamedTuple):
    """What is known after a layer: the size of the map, the jump between its units, and their receptive field."""

    size: int
    jump: int = 1
    field: int = 1

    def after(self, layer: Layer) -> "State":
        reach = layer.dilation * (layer.kernel - 1)
        return State(
            (self.size - reach - 1) // layer.stride + 1, self.jump * layer.stride, self.field + reach * self.jump
        )


SCHEMES: dict[str, tuple[list[Layer], str]] = {  # layers that are repeated, and a color
    "3x3": ([Layer(3)], VERMILION),
    "11x11": ([Layer(11)], PURPLE),
    "3x3, 2x2 pooling after every 5": ([Layer(3)] * 5 + [Layer(2, 2, pool=True)], BLUE),
    "3x3, every 5th of stride 2": ([Layer(3)] * 4 + [Layer(3, 2)], GREEN),
    # Yu and Koltun 2016, "Multi-Scale Context Aggregation by Dilated Convolutions", section 3
    "3x3, dilation 1, 2, 4, ... 64": ([Layer(3, dilation=2**i) for i in range(7)], ORANGE),
}


def layers(scheme: str, size: int = SIZE) -> list[Layer]:
    """The layers of a scheme for an image of so many pixels."""
    state, chosen = State(size), []
    for layer in itertools.cycle(SCHEMES[scheme][0]):
        after = state.after(layer)
        if state.field >= size or after.size < 1:
            break
        if layer.pool and after.size < 3:  # nothing could follow
            continue
        chosen.append(layer)
        state = after
    return chosen


def states(chosen: list[Layer], size: int = SIZE) -> list[State]:
    result = [State(size)]
    for layer in chosen:
        result.append(result[-1].after(layer))
    return result


def modules(chosen: list[Layer], channels: int = CHANNELS, inputs: int = 3) -> nn.Sequential:
    """The layers as torch has them."""
    net = nn.Sequential()
    for layer in chosen:
        if layer.pool:
            net.append(nn.MaxPool2d(layer.kernel, layer.stride))
        else:
            net.append(nn.Conv2d(inputs, channels, layer.kernel, layer.stride, dilation=layer.dilation, bias=False))
            inputs = channels
    return net


def row(scheme: str) -> Row:
    """A line of the table."""
    chosen = layers(scheme)
    after = states(chosen)
    with torch.device("meta"):
        weights = [p.numel() for p in modules(chosen).parameters()]
    sizes = [state.size for state, layer in zip(after[1:], chosen, strict=True) if not layer.pool]
    return {
        "scheme": scheme,
        "convolutions": len(weights),
        "poolings": len(chosen) - len(weights),
        "size left": after[-1].size,
        "receptive field": after[-1].field,
        "parameters": sum(weights),
        "multiplications, 10^9": sum(n * size**2 for n, size in zip(weights, sizes, strict=True)) / 1e9,
    }


def draw(rows: list[Row]) -> Figure:
    titles = ["Receptive field after each layer", "Size of the map after each layer"]
    figure, (left, right) = panels(f"From {SIZE} pixels to a unit that has seen them all", 1, 2, (12, 5), titles)
    for (scheme, (_, color)), line in zip(SCHEMES.items(), rows, strict=True):
        after = states(layers(scheme))
        label = f"{scheme}: {len(after) - 1} layers, {line['size left']} px left"
        left.plot([state.field for state in after], color=color, linewidth=2, label=scheme)
        right.plot([state.size for state in after], color=color, linewidth=2, label=label)
    left.axhline(SIZE, color=GRAY, linewidth=1, linestyle=":")
    left.set(xlabel="layer", ylabel="pixels", ylim=(0, 450))
    right.set(xlabel="layer", ylabel="pixels", ylim=(0, 620))
    right.legend(frameon=False, loc="upper right", fontsize=9)
    return figure


def main(folder: Path) -> None:
    rows = [row(scheme) for scheme in SCHEMES]
    publish(folder, "layers_needed", draw(rows), rows)


if __name__ == "__main__":
    run(main, __doc__)
