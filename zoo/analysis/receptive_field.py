"""The receptive field of each layer of a network: the part of the image that one of its units sees.

Araujo, Norris and Sim 2019, "Computing Receptive Fields of Convolutional Neural Networks", Distill. Pairs are (height,
width).
"""

from typing import NamedTuple

from torch import fx, nn

from zoo.analysis.field_rules import RULES, Call, Maps, Pair, pointwise_rule, unknown_rule
from zoo.analysis.graph import operations
from zoo.analysis.intervals import Axis, pixels


class Layer(NamedTuple):
    """A layer of a network, or a function in it that is more than a rearrangement.

    name: the path of the module; of a function the path of the module that calls it, and the function's name.
    kernel, stride, dilation, padding: of a convolution or pooling, in units of its input; padding at the top and left.
        A layer that computes each unit from all units of its input has a kernel of that size.
    jump: pixels of the image from one unit to the next; 0 where all see the same.
    field: pixels of the image that a unit sees, the most if units differ. Borders are not counted, as is usual: it may
        be larger than the image.
    out: units of the layer.
    note: why a unit sees everything; else "".
    axes: which pixels each unit sees; see `box`.
    function: what it computes, such as "conv2d" or "add".
    """

    name: str
    kernel: Pair
    stride: Pair
    dilation: Pair
    padding: Pair
    jump: Pair
    field: tuple[int, int]
    out: tuple[int, int]
    note: str
    axes: tuple[Axis, Axis]
    function: str

    def box(self, row: int, column: int) -> tuple[int, int, int, int] | None:
        """What unit (row, column) sees: xyxy in pixels, beyond the image where it sees padding; None for nothing."""
        y, x = self.axes[0].interval(row), self.axes[1].interval(column)
        return (x[0], y[0], x[1] + 1, y[1] + 1) if x and y else None


def receptive_field(
    net: nn.Module,
    image_shape: tuple[int, int, int],
    leaves: tuple[type[nn.Module], ...] = (),
    pointwise: tuple[type[nn.Module], ...] = (),
) -> list[Layer]:
    """The receptive fields of all layers of a network in evaluation mode.

    A unit sees a pixel if there is a path between them in the graph. A field is an interval, even where dilation leaves
    holes in it; at joins, such as additions and concatenations, it is the smallest that holds all paths. Operations
    that only rearrange, such as `permute`, are followed and not listed.

    Of what has no fixed places, such as attention or a linear layer on flattened maps, each unit sees all that the
    input sees of the image, and so does each unit of an operation that is not known here; the `note` says so. Norms
    with statistics over the image (layer, group and instance norm; batch norm without running statistics) let each unit
    see everything, too: name them in `pointwise` to leave that out.

    Args:
        net: maps images (B, C, H, W) to anything. It stays as it is; its weights are not read.
        image_shape: (C, H, W).
        leaves: classes of modules to take as unknown operations, because torch.fx cannot trace them.
        pointwise: classes of modules to take as operations on each position by itself.

    Returns:
        The layers in the order of the graph.

    Raises:
        ValueError: if the network cannot be traced, or cannot take such images.

    >>> for layer in receptive_field(nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.MaxPool2d(2)), (3, 32, 32)):
    ...     print(layer.name, layer.jump, layer.field, layer.out)
    0 (2, 2) (3, 3) (15, 15)
    1 (4, 4) (5, 5) (7, 7)
    """
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ValueError(f"image_shape is {tuple(image_shape)}: expected (channels, height, width), each 1 or more")
    image, steps = operations(net, image_shape, (*leaves, *pointwise))
    seen = {image: Maps((pixels(), pixels()), (2, 3), (image_shape[1], image_shape[2]))}
    pads: dict[fx.Node, tuple[str, Pair]] = {}
    layers: list[Layer] = []
    for step in steps:
        sources = {node: seen[node] for node in step.node.all_input_nodes if node in seen}
        if not sources:
            continue  # computed from weights alone
        call = Call(step, sources, (image_shape[1], image_shape[2]))
        rule = RULES.get(step.function, pointwise_rule if step.pointwise else unknown_rule)
        if step.node.op == "call_module":
            rule = pointwise_rule if issubclass(step.module, pointwise) else RULES.get(step.function, unknown_rule)
        maps, window, note = rule(call) or unknown_rule(call)
        seen[step.node] = maps
        if step.is_in_place:
            seen[call.input] = maps
        if step.function == "pad" and window:
            pads[step.node], window = (step.name, window.padding), None
        elif window and pads.get(call.input, ("",))[0] == step.name:
            window = window._replace(padding=pads[call.input][1])  # a convolution that pads by reflection first
        if window:
            jump = (maps.axes[0].jump, maps.axes[1].jump)
            field = (maps.axes[0].field(maps.grid[0]), maps.axes[1].field(maps.grid[1]))
            layers.append(Layer(step.name, *window, jump, field, maps.grid, note, maps.axes, step.function))
    return layers
