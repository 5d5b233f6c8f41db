"""How each operation of a network moves receptive fields: the rules that `zoo.analysis.receptive_field` applies.

A rule gets a `Call` and returns what the elements of the result see, or None if it cannot follow this call. C channels,
H height, W width, n units of the input and m of the output along an axis; k kernel, s stride, p padding, d dilation.
Pairs are (height, width), and `i` is 0 for height and 1 for width.
"""

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from functools import partial
from math import floor
from typing import Any, NamedTuple, cast

from torch import Tensor, fx

from zoo.analysis.graph import Operation
from zoo.analysis.intervals import Axis, constant, hull, merged

Pair = tuple[float, float]
ALL = "a unit sees all positions of the input"


class Maps(NamedTuple):
    """What the elements of a tensor see.

    axes: for height and width.
    dims: along which dimension of the tensor the units of each axis lie: the same one for both where maps were
        flattened to tokens, row by row; None if there is one unit only, or all see the same.
    grid: units along each axis.
    ordered: false for tokens of which it is not known which is which.
    """

    axes: tuple[Axis, Axis]
    dims: tuple[int | None, int | None]
    grid: tuple[int, int]
    ordered: bool = True

    @property
    def are_tokens(self) -> bool:
        return self.dims[0] is not None and self.dims[0] == self.dims[1]

    def change(self, i: int, axis: Axis, dim: int | None, count: int) -> "Maps":
        axes, dims, grid = list(self.axes), list(self.dims), list(self.grid)
        axes[i], dims[i], grid[i] = axis, dim, count
        return self._replace(axes=(axes[0], axes[1]), dims=(dims[0], dims[1]), grid=(grid[0], grid[1]))

    def move(self, new: Callable[[int], int | None]) -> "Maps":
        """With other dimensions: `new` gives that of an old one."""
        rows, columns = (None if dim is None else new(dim) for dim in self.dims)
        return self._replace(dims=(rows, columns))


class Window(NamedTuple):
    """The numbers of an operation that its layer shows."""

    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: Pair = (0, 0)


Found = tuple[Maps, Window | None, str]  # without a window the operation only rearranges, and is not listed


class Call:
    """An operation, and what its inputs see.

    Args:
        step: the operation.
        sources: the nodes among its inputs that see something of the image.
        size: (H, W) of the image.

    Attributes:
        input: the first of the sources.
        maps: what it sees.
        shape, out: the shapes of the first source and of the result.
    """

    def __init__(self, step: Operation, sources: dict[fx.Node, Maps], size: tuple[int, int]) -> None:
        self.step, self.sources, self.size = step, sources, size
        self.input, self.maps = next(iter(sources.items()))
        self.shape, self.out = shape_of(self.input), shape_of(step.node)

    def argument(self, place: int, name: str, default: Any = None) -> Any:
        args, kwargs = self.step.node.args, self.step.node.kwargs
        return args[place] if len(args) > place else kwargs.get(name, default)

    def dimensions(self, place: int, name: str = "dim", default: Any = None) -> list[int]:
        """An argument that names one or several dimensions, counted from either end; without it all of them."""
        given = self.argument(place, name, default)
        if given is None:
            return list(range(len(self.shape)))
        return [dim % len(self.shape) for dim in ([given] if isinstance(given, int) else given)]

    def all_positions(self, which: Iterable[int] = (0, 1), note: str = ALL, keep: bool = False) -> Found:
        """Along the given axes each unit sees all that the sources see of the image.

        Units that all see the same count as one, unless they are to be kept where the result has as many.
        """
        which, kernel, parts = list(which), [1, 1], []
        for maps in self.sources.values():
            for i in which:
                kernel[i] = max(kernel[i], maps.grid[i])
                seen = hull(maps.axes[i].intervals(maps.grid[i]))
                inside = None if seen is None else (max(seen[0], 0), min(seen[1], self.size[i] - 1))
                dim = maps.dims[i]
                kept = keep and dim is not None and self.out[dim : dim + 1] == self.shape[dim : dim + 1]
                maps = maps.change(i, constant(inside), dim if kept else None, maps.grid[i] if kept else 1)
            parts.append(maps)
        joined = parts[0] if len(parts) == 1 else _join(parts)
        assert joined is not None, "several sources are never joined along some axes only"
        return joined, Window((kernel[0], kernel[1])), note if which else ""

    def mixed(self, dims: Iterable[int], note: str = ALL) -> Found | None:
        """Each unit sees all positions along the given dimensions, and its own along the others."""
        if len(self.sources) > 1:
            return None
        return self.all_positions([i for i in (0, 1) if self.maps.dims[i] in tuple(dims)], note)


Rule = Callable[[Call], Found | None]


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """The shape of a node's tensor; of several tensors the first one's."""
    value = node.meta["value"]
    return tuple(value.shape if isinstance(value, Tensor) else value[0].shape)


def _pair(value: Any) -> tuple[int, int]:
    values = [value] if isinstance(value, int) else list(value)
    return values[0], values[-1]


def _number(value: Fraction) -> float:
    return int(value) if value.denominator == 1 else float(value)


# Operations on each position by itself


def _join(parts: Sequence[Maps]) -> Maps | None:
    """What a unit sees that is computed from the units at its position in several maps; None if they do not fit."""
    placed = [maps for maps in parts if maps.dims != (None, None)]
    ordered = all(maps.ordered for maps in placed)
    different = {maps.axes for maps in placed if any(axis.jump for axis in maps.axes)}
    if len({maps.are_tokens for maps in placed}) > 1 or (not ordered and len(different) > 1):
        return None
    found = parts[0]
    for i in (0, 1):
        dims = {maps.dims[i] for maps in placed} - {None}
        if len(dims) > 1:
            return None
        axes = [maps.axes[i].at(0) if maps.dims[i] is None else maps.axes[i] for maps in parts]
        axis, count = merged(piece for axis in axes for piece in axis.pieces), max(maps.grid[i] for maps in parts)
        if len(set(axis.intervals(count))) == 1:
            axis = axis.at(0)
        found = found.change(i, axis, dims.pop() if dims else None, count)
    return found._replace(ordered=ordered)


def _broadcast(maps: Maps, shape: tuple[int, ...], out: tuple[int, ...]) -> Maps:
    """Of a tensor that is repeated to another shape."""
    for i, dim in enumerate(maps.dims):
        if dim is not None:
            new = dim + len(out) - len(shape)
            same = shape[dim] == out[new]
            maps = (
                maps.change(i, maps.axes[i], new, maps.grid[i]) if same else maps.change(i, maps.axes[i].at(0), None, 1)
            )
    return maps


def pointwise_rule(call: Call) -> Found | None:
    parts = [_broadcast(maps, shape_of(node), call.out) for node, maps in call.sources.items()]
    maps = parts[0] if len(parts) == 1 else _join(parts)
    return maps and (maps, Window(), "")


def unknown_rule(call: Call) -> Found:
    return call.all_positions(note=f"{call.step.function} is not followed: {ALL}")


def _attention(call: Call) -> Found:
    return call.all_positions(note=f"attention: {ALL}", keep=True)


# Operations that slide a window over maps


def _spatial(call: Call, takes: Sequence[Callable[[Axis], Axis]], window: Window | None) -> Found | None:
    """An operation on the last two of four dimensions that works on each axis by itself."""
    maps = call.maps
    if len(call.sources) > 1 or len(call.shape) != 4 or any(maps.dims[i] not in (None, 2 + i) for i in (0, 1)):
        return None
    for i, take in enumerate(takes):
        axis = maps.axes[i].at(0) if maps.dims[i] is None else maps.axes[i]
        maps = maps.change(i, take(axis), 2 + i, call.out[2 + i])
    return maps, window, ""


def _block(o: int, n: int) -> range:
    return range(o * n, o * n + n)


def _line(o: int, start: int, step: int) -> list[int]:
    return [start + o * step]


def _slide(call: Call, kernel: Any, stride: Any, padding: Any, dilation: Any = 1) -> Found | None:
    kernel, stride, dilation = _pair(kernel), _pair(stride or kernel), _pair(dilation)
    if isinstance(padding, str):
        padding = [d * (k - 1) // 2 if padding == "same" else 0 for k, d in zip(kernel, dilation, strict=True)]
    window = Window(kernel, stride, dilation, _pair(padding))

    def take(axis: Axis, k: Any, s: Any, d: Any, p: Any) -> Axis:
        return axis.take(lambda o: range(o * s - p, o * s - p + k * d, d), shift=s)

    return _spatial(call, [partial(take, k=k, s=s, d=d, p=p) for k, s, d, p in zip(*window, strict=True)], window)


def _conv2d(call: Call) -> Found | None:
    kernel, stride = shape_of(call.argument(1, "weight"))[2:], call.argument(3, "stride", 1)
    return _slide(call, kernel, stride, call.argument(4, "padding", 0), call.argument(5, "dilation", 1))


def _max_pool2d(call: Call) -> Found | None:
    kernel, stride = call.argument(1, "kernel_size"), call.argument(2, "stride")
    return _slide(call, kernel, stride, call.argument(3, "padding", 0), call.argument(4, "dilation", 1))


def _avg_pool2d(call: Call) -> Found | None:
    return _slide(call, call.argument(1, "kernel_size"), call.argument(2, "stride"), call.argument(3, "padding", 0))


def _lp_pool2d(call: Call) -> Found | None:
    return _slide(call, call.argument(2, "kernel_size"), call.argument(3, "stride"), 0)


def _conv_transpose2d(call: Call) -> Found | None:
    """Input unit u adds to the outputs s u - p + d j for j from 0 to k - 1."""
    kernel, stride = _pair(shape_of(call.argument(1, "weight"))[2:]), _pair(call.argument(3, "stride", 1))
    padding, dilation = _pair(call.argument(4, "padding", 0)), _pair(call.argument(7, "dilation", 1))
    window = Window(kernel, stride, dilation, padding)

    def take(axis: Axis, k: Any, s: Any, d: Any, p: Any) -> Axis:
        return axis.take(lambda o: [(o + p - d * j) // s for j in range(k) if (o + p - d * j) % s == 0], period=s)

    return _spatial(call, [partial(take, k=k, s=s, d=d, p=p) for k, s, d, p in zip(*window, strict=True)], window)


def _adaptive_pool2d(call: Call) -> Found | None:
    """Output o reads the inputs from floor(o n / m) to ceil((o + 1) n / m) - 1."""
    if len(call.shape) != 4:
        return None
    ratios = [Fraction(n, m) for n, m in zip(call.shape[2:], call.out[2:], strict=True)]

    def window(o: int, ratio: Fraction) -> range:
        return range(floor(o * ratio), -floor(-(o + 1) * ratio))

    def take(axis: Axis, ratio: Fraction) -> Axis:
        return axis.take(partial(window, ratio=ratio), ratio.denominator, ratio.numerator)

    rows, columns = (max(len(window(o, ratio)) for o in range(ratio.denominator)) for ratio in ratios)
    numbers = Window((rows, columns), (_number(ratios[0]), _number(ratios[1])))
    return _spatial(call, [partial(take, ratio=ratio) for ratio in ratios], numbers)


def _interpolate(call: Call) -> Found | None:
    """Output o reads the inputs around the source position that torch computes for it, by mode."""
    mode, corners = call.argument(3, "mode", "nearest"), bool(call.argument(4, "align_corners"))
    if mode == "area":
        return _adaptive_pool2d(call)
    if call.argument(6, "antialias", False) or mode not in ("nearest", "nearest-exact", "bilinear", "bicubic"):
        return None
    factor = None if call.argument(5, "recompute_scale_factor") else call.argument(2, "scale_factor")
    factors = [None, None] if factor is None else ([factor] * 2 if isinstance(factor, int | float) else list(factor))
    takes = []
    for n, m, given in zip(call.shape[2:], call.out[2:], factors, strict=True):
        ratio = Fraction(n, m) if given is None else 1 / Fraction(given).limit_denominator(1000)
        if corners:
            ratio = Fraction(n - 1, m - 1) if m > 1 else Fraction(0)

        def window(o: int, ratio: Fraction = ratio) -> list[int]:
            if mode == "nearest":
                return [floor(o * ratio)]
            if mode == "nearest-exact":
                return [floor((o + Fraction(1, 2)) * ratio)]
            place = o * ratio if corners else (o + Fraction(1, 2)) * ratio - Fraction(1, 2)
            first, reach = floor(place), 1 if mode == "bilinear" else 2
            return [first] if place == first else list(range(first + 1 - reach, first + 1 + reach))

        takes.append(partial(Axis.take, window=window, period=ratio.denominator, shift=ratio.numerator))
    return _spatial(call, takes, Window())


def _pixel_shuffle(call: Call) -> Found | None:
    r = call.argument(1, "upscale_factor")
    return _spatial(call, [partial(Axis.take, window=lambda o: [o // r], period=r)] * 2, Window())


def _pixel_unshuffle(call: Call) -> Found | None:
    r = call.argument(1, "downscale_factor")
    take = partial(Axis.take, window=lambda o: range(o * r, o * r + r), shift=r)
    return _spatial(call, [take] * 2, Window((r, r), (r, r)))


# Operations that mix positions


def _reduce(call: Call) -> Found | None:
    """Means, sums and the like over some dimensions: as pooling with a window of all positions."""
    maps, dims, kernel = call.maps, call.dimensions(1), [1, 1]
    if len(call.sources) > 1:
        return None
    if not maps.ordered and maps.dims[0] in dims:
        return call.all_positions()
    for i in (0, 1):
        if maps.dims[i] in dims:
            kernel[i] = n = maps.grid[i]
            maps = maps.change(i, maps.axes[i].take(partial(_block, n=n), shift=n), None, 1)
    if len(call.out) != len(call.shape):
        maps = maps.move(lambda dim: dim - sum(d < dim for d in dims))
    return maps, Window((kernel[0], kernel[1]), (kernel[0], kernel[1])), ""


def _linear(call: Call) -> Found | None:
    return call.mixed([len(call.shape) - 1])


def _matmul(call: Call) -> Found | None:
    """A product with weights, from the right or from the left; of two maps it is not followed."""
    return call.mixed([len(call.shape) - (1 if call.argument(0, "input") is call.input else 2)])


def _along_dim(place: int, default: int | None = None) -> Rule:
    """Softmax and the like, along one dimension, which is the argument number `place`."""
    return lambda call: call.mixed(call.dimensions(place, default=default))


def _layer_norm(call: Call) -> Found | None:
    last = len(call.argument(1, "normalized_shape"))
    return call.mixed(range(len(call.shape) - last, len(call.shape)), f"statistics over the image: {ALL}")


def _image_norm(call: Call) -> Found | None:
    return call.mixed(range(1, len(call.shape)), f"statistics over the image: {ALL}")


def _batch_norm(call: Call) -> Found | None:
    return _image_norm(call) if call.argument(5, "training", False) else pointwise_rule(call)


# Operations that rearrange


def _reshape(call: Call) -> Found | None:
    """`view`, `flatten` and the like: a position stays known if its dimension is neither split nor merged."""
    maps, shape, out = call.maps, call.shape, call.out
    for i, dim in enumerate(maps.dims):
        if dim is not None and shape[dim] == 1:
            maps = maps.change(i, maps.axes[i], None, 1)
    if maps.dims == (None, None):
        return maps, None, ""
    groups = _regroup(shape, out)
    (old, new) = next(group for group in groups if (maps.dims[1] if maps.dims[0] is None else maps.dims[0]) in group[0])
    dims = [dim for dim in maps.dims if dim is not None]
    if all(dim in old for dim in dims):
        if len(new) == 1:
            row_by_row = old == sorted(set(dims)) and dims == sorted(dims)
            return maps.move(lambda _: new[0])._replace(ordered=maps.ordered and row_by_row), None, ""
        if maps.are_tokens and maps.ordered and len(old) == 1 and tuple(out[dim] for dim in new) == maps.grid:
            return maps._replace(dims=(new[0], new[1])), None, ""
        return None
    alone = {old[0]: new[0] for old, new in groups if len(old) == len(new) == 1}
    return (maps.move(alone.get), None, "") if all(dim in alone for dim in dims) else None


def _regroup(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Which dimensions of a shape become which of another, in groups of equal size; those of size 1 are left out.

    >>> _regroup((2, 8, 4, 4), (2, 2, 4, 16))
    [([0], [0]), ([1], [1, 2]), ([2, 3], [3])]
    """
    left, right = ([d for d, size in enumerate(shape) if size != 1] for shape in (old, new))
    groups = []
    while left and right:
        a, b = [left.pop(0)], [right.pop(0)]
        sizes = [old[a[0]], new[b[0]]]
        while sizes[0] != sizes[1]:
            if sizes[0] < sizes[1]:
                a.append(left.pop(0))
                sizes[0] *= old[a[-1]]
            else:
                b.append(right.pop(0))
                sizes[1] *= new[b[-1]]
        groups.append((a, b))
    return groups


def _permute(call: Call) -> Found:
    given = call.argument(1, "dims")
    order = [d % len(call.shape) for d in cast(Any, call.step.node.args[1:] if isinstance(given, int) else given)]
    return call.maps.move(order.index), None, ""


def _transpose(call: Call) -> Found:
    count, last_two = len(call.shape), call.step.node.target is getattr  # `x.mT`, whose argument is the name
    a, b = (-2, -1) if last_two else (call.argument(1, "dim0", 0), call.argument(2, "dim1", 1))
    new = {**{dim: dim for dim in range(count)}, a % count: b % count, b % count: a % count}
    return call.maps.move(new.get), None, ""


def _expand(call: Call) -> Found:
    return _broadcast(call.maps, call.shape, call.out), None, ""


def _concatenate(call: Call) -> Found | None:
    (dim,) = call.dimensions(1, default=0)
    parts = list(call.sources.values())
    if all(dim not in maps.dims for maps in parts):
        maps = _join(parts)
        return maps and (maps, Window(), "")
    if len(parts) == 1 and parts[0].are_tokens:  # with tokens that see nothing, such as a class token
        return parts[0]._replace(ordered=False), None, ""
    return None


def _stack(call: Call) -> Found | None:
    dim = call.argument(1, "dim", 0) % len(call.out)
    maps = _join([maps.move(lambda d: d + (d >= dim)) for maps in call.sources.values()])
    return maps and (maps, Window(), "")


def _split(place: int) -> Rule:
    """Into several tensors, along the dimension that is the argument number `place`."""

    def rule(call: Call) -> Found | None:
        (dim,) = call.dimensions(place, default=0)
        if dim in call.maps.dims:
            return None
        gone = len(call.out) < len(call.shape)
        return call.maps.move(lambda d: d - (gone and d > dim)), None, ""

    return rule


def _getitem(call: Call) -> Found | None:
    maps, index = call.maps, call.argument(1, "index")
    if not isinstance(call.input.meta["value"], Tensor):
        return maps, None, ""  # one of several tensors
    index = list(index) if isinstance(index, tuple) else [index]
    if not all(part is None or part is Ellipsis or isinstance(part, int | slice) for part in index):
        return None
    missing = len(call.shape) - sum(part is not None and part is not Ellipsis for part in index)
    fill = index.index(Ellipsis) if Ellipsis in index else len(index)
    index[fill : fill + 1] = [slice(None)] * missing
    old, new, moved = 0, 0, {}
    for part in index:
        if part is None:
            new += 1
            continue
        whole = isinstance(part, slice) and range(call.shape[old])[part] == range(call.shape[old])
        if old in maps.dims and maps.are_tokens and not whole:
            if isinstance(part, int):
                return call.all_positions()[0], None, ""  # such as the class token, which may be any
            maps = maps._replace(ordered=False)
        elif old in maps.dims and not whole:
            i = maps.dims.index(old)
            units = range(call.shape[old])[part]
            if isinstance(units, int):
                maps = maps.change(i, maps.axes[i].at(units), None, 1)
            else:
                start, step = units.start, units.step
                axis = maps.axes[i].take(partial(_line, start=start, step=step), shift=step)
                maps = maps.change(i, axis, old, len(units))
        if not isinstance(part, int):
            moved[old] = new
            new += 1
        old += 1
    return maps.move(moved.__getitem__), None, ""


def _flip(call: Call) -> Found | None:
    given = call.argument(1, "dims")
    dims = [d % len(call.shape) for d in cast(Any, call.step.node.args[1:] if isinstance(given, int) else given)]
    maps = call.maps
    for i, dim in enumerate(maps.dims):
        if dim in dims:
            if maps.are_tokens:
                return maps._replace(ordered=False), None, ""
            last = maps.grid[i] - 1
            maps = maps.change(i, maps.axes[i].take(partial(_line, start=last, step=-1), shift=-1), dim, last + 1)
    return maps, None, ""


def _pad(call: Call) -> Found | None:
    maps, given, start = call.maps, call.argument(1, "pad"), [0, 0]
    for i, dim in enumerate(maps.dims):
        place = 0 if dim is None else 2 * (len(call.shape) - 1 - dim)
        if dim is not None and any(given[place : place + 2]):
            if maps.are_tokens:
                return maps._replace(ordered=False), None, ""
            start[i] = p = given[place]
            maps = maps.change(i, maps.axes[i].take(partial(_line, start=-p, step=1)), dim, call.out[dim])
    return maps, Window(padding=(start[0], start[1])), ""


RULES: dict[str, Rule] = {
    "conv2d": _conv2d,
    "conv_transpose2d": _conv_transpose2d,
    **dict.fromkeys(("max_pool2d", "max_pool2d_with_indices"), _max_pool2d),
    "avg_pool2d": _avg_pool2d,
    "lp_pool2d": _lp_pool2d,
    **dict.fromkeys(
        ("adaptive_avg_pool2d", "adaptive_max_pool2d", "adaptive_max_pool2d_with_indices"), _adaptive_pool2d
    ),
    **dict.fromkeys(("interpolate", "upsample"), _interpolate),
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    **dict.fromkeys(("mean", "sum", "amax", "amin", "std", "var", "std_mean", "var_mean", "logsumexp"), _reduce),
    "linear": _linear,
    "matmul": _matmul,
    **dict.fromkeys(("softmax", "log_softmax", "softmin"), _along_dim(1)),
    "glu": _along_dim(1, -1),
    "normalize": _along_dim(2, 1),
    **dict.fromkeys(("layer_norm", "rms_norm"), _layer_norm),
    **dict.fromkeys(("group_norm", "instance_norm"), _image_norm),
    "batch_norm": _batch_norm,
    **dict.fromkeys(("local_response_norm", "channel_shuffle", "prelu"), pointwise_rule),
    **dict.fromkeys(("scaled_dot_product_attention", "multi_head_attention_forward", "MultiheadAttention"), _attention),
    **dict.fromkeys(("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze"), _reshape),
    "permute": _permute,
    **dict.fromkeys(("transpose", "swapaxes", "swapdims", "t", "T", "mT"), _transpose),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), _expand),
    **dict.fromkeys(("cat", "concat", "concatenate"), _concatenate),
    "stack": _stack,
    **dict.fromkeys(("chunk", "split", "tensor_split", "split_with_sizes"), _split(2)),
    "unbind": _split(1),
    "getitem": _getitem,
    "flip": _flip,
    "pad": _pad,
}
