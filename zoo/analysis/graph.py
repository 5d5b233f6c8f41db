"""What a network computes, operation by operation: a torch.fx graph in which the shape of every value is known.

The network is copied without its numbers (as fake tensors, which have shapes only), so nothing is computed, nothing is
allocated, and the original stays as it is. Unlike plain symbolic tracing, this one knows shapes while it traces: code
such as `if x.shape[-1] % 8` runs as usual.
"""

import copy
import inspect
import logging
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeCopyMode,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_any, tree_map_only

BATCH = 2  # not 1, which `squeeze` would remove
# Modules of torch whose inside is not traced; all others consist of functions of torch.nn.functional.
OPAQUE: tuple[type[nn.Module], ...] = (
    *(nn.MultiheadAttention, nn.Transformer, nn.TransformerEncoder, nn.TransformerDecoder),
    *(nn.TransformerEncoderLayer, nn.TransformerDecoderLayer, nn.RNNBase, nn.RNNCellBase),
)
NEEDS_VALUES = (DataDependentOutputException, DynamicOutputShapeException)
# Operations on each element by itself that torch does not tag as such, and operations that leave elements as they are.
UNTAGGED = {"hardswish", "rrelu_with_noise", "log_sigmoid_forward", "_prelu_kernel", "_to_copy", "detach", "alias"}


class Operation(NamedTuple):
    """One operation of a network.

    name: of the layer: the path of a module of torch's (or of a class derived from one), else the path of the module
        that calls the function, and the function's name, such as "layer1.0.add"; the second call gets "add_1".
    function: the function or method, such as "conv2d", or the class of a module that was not traced.
    module: the class of the innermost module that it belongs to; itself, if it was not traced.
    node: of the torch.fx graph; `node.meta["value"]` has the shape of the result.
    pointwise: it computes each element from the elements at the same place.
    """

    name: str
    function: str
    module: type
    node: fx.Node
    pointwise: bool

    @property
    def is_in_place(self) -> bool:
        """Whether it changes its first input."""
        target = self.node.target
        name = target if isinstance(target, str) else getattr(target, "__name__", "")
        in_place = ("iadd", "isub", "imul", "itruediv")
        return self.node.op != "call_module" and (name in in_place or (name.endswith("_") and name[0] != "_"))


def operations(
    net: nn.Module, image_shape: tuple[int, ...], leaves: tuple[type[nn.Module], ...] = ()
) -> tuple[fx.Node, list[Operation]]:
    """The operations of a network in evaluation mode on a batch of images.

    Args:
        net: maps images (B, C, H, W) to anything.
        image_shape: (C, H, W).
        leaves: classes of modules that become one operation each, without a look into them.

    Returns:
        The node of the images, and the operations on tensors, in the order of computation.

    Raises:
        ValueError: if the network cannot be traced, or cannot take such images.
    """
    try:
        inspect.signature(net.forward).bind(image_shape)
    except TypeError as error:
        raise ValueError(
            f"{type(net).__name__}.forward takes {inspect.signature(net.forward)} ({error}): expected one batch of "
            "images; name the part of it that takes images alone"
        ) from None
    mode = FakeTensorMode()
    with FakeCopyMode(mode):
        fake = copy.deepcopy(net).eval()
    with mode:
        _off_meta(fake)
    tracer = _Tracer(net, mode, leaves, tuple(image_shape))
    log = logging.getLogger("torch._subclasses.fake_tensor")  # repeats on standard error what it raises
    was_disabled, log.disabled = log.disabled, True
    try:
        with torch.no_grad(), mode, warnings.catch_warnings(action="ignore"):
            graph = tracer.trace(_Root(fake))
    except _CannotTake as error:
        raise ValueError(
            f"{type(net).__name__} cannot take images of {size_text(image_shape)}: {error}: "
            "expected a size that it is made for; give another size"
        ) from None
    except Exception as error:
        if isinstance(error, (ValueError, AssertionError)) and not isinstance(error, fx.proxy.TraceError):
            raise ValueError(  # from a check of the net's own
                f"{type(net).__name__} cannot take images of {size_text(image_shape)} ({_one_line(error)}): "
                "expected a size that it is made for; give another size"
            ) from error
        raise ValueError(
            f"{type(net).__name__} cannot be traced by torch.fx {_place(error)}({_one_line(error)}): expected code "
            "that does not depend on the values of tensors; wrap it as a leaf: put the line into a module of its own, "
            "and give the class of that module as one of the leaves"
        ) from error
    finally:
        log.disabled = was_disabled
    (image,) = (node for node in graph.nodes if node.op == "placeholder")
    return image, tracer.operations


def size_text(image_shape: tuple[int, ...]) -> str:
    """(3, 32, 32) -> "3x32x32"."""
    return "x".join(map(str, image_shape))


class _CannotTake(Exception):
    """An operation that is impossible with the shapes of its inputs."""


class _Root(nn.Module):
    """The network as a child, so that constants which tracing stores are not stored in it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Any:
        return self.net(image)


class _Tracer(fx.Tracer):
    """Traces all modules but leaves down to functions, and computes the shape of each result at once."""

    def __init__(
        self, net: nn.Module, mode: FakeTensorMode, leaves: tuple[type[nn.Module], ...], image_shape: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.original, self.mode, self.leaves, self.image_shape = net, mode, (*OPAQUE, *leaves), image_shape
        self.operations: list[Operation] = []
        self._calls: dict[str, int] = {}
        self._constants: dict[int, fx.Node] = {}
        self._computing = False

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, self.leaves)

    def path_of_module(self, mod: nn.Module) -> str:
        try:
            return super().path_of_module(mod)
        except NameError:  # made on the fly, as a slice of a Sequential is
            return self.scope.module_path

    def proxy(self, node: fx.Node) -> "_Proxy":
        return _Proxy(node, self)

    def call_module(self, m: nn.Module, forward: Callable, args: tuple, kwargs: dict) -> Any:
        return forward(*args, **kwargs) if self._computing else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict) -> Any:
        return attr_val  # parameters as they are: their shapes are known

    def create_arg(self, a: Any) -> Any:
        """What stands in a node's arguments; a weight gets a node of its own, which torch.fx would search for long."""
        if not isinstance(a, Tensor):
            return super().create_arg(a)
        if id(a) not in self._constants:
            self._constants[id(a)] = self.create_node("get_attr", f"constant_{len(self._constants)}", (), {})
            self._constants[id(a)].meta["value"] = a  # which also keeps it alive, and so its `id` its own
        return self._constants[id(a)]

    def create_proxy(self, kind: str, target: Any, args: tuple, kwargs: dict, *rest: Any, **options: Any) -> Any:
        proxy = super().create_proxy(kind, target, args, kwargs, *rest, **options)
        with _AtenRecorder() as recorder:
            value = self._compute(kind, target, *tree_map_only(fx.Proxy, _value, (args, kwargs)))
        proxy.node.meta["value"] = value
        if not tree_any(lambda part: isinstance(part, Tensor), value):
            return value  # a size or a type: code goes on with it as usual
        if kind != "placeholder":
            self.operations.append(self._describe(kind, target, proxy.node, recorder.pointwise))
        return proxy

    def _compute(self, kind: str, target: Any, args: tuple, kwargs: dict) -> Any:
        """The result of a node, with its shape only."""
        if kind == "placeholder":
            weight = next(self.root.parameters(), torch.empty(0))
            return torch.empty(BATCH, *self.image_shape, device=weight.device, dtype=weight.dtype)
        self._computing = True
        try:
            if kind == "call_module":
                return self._call_leaf(target, args, kwargs)
            return getattr(args[0], target)(*args[1:], **kwargs) if kind == "call_method" else target(*args, **kwargs)
        except NEEDS_VALUES:
            raise
        except (RuntimeError, IndexError) as error:
            name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
            shapes = [size_text(tuple(part.shape[1:])) for part in args[:1] if isinstance(part, Tensor)]
            path = _path(self.scope.module_path) or type(self.original).__name__
            raise _CannotTake(f"{name} in {path} got {' '.join(shapes) or 'them'} ({_one_line(error)})") from error
        finally:
            self._computing = False

    def _call_leaf(self, path: str, args: tuple, kwargs: dict) -> Any:
        """A leaf whose code depends on values is computed on zeros, by a copy of the original."""
        try:
            return self.root.get_submodule(path)(*args, **kwargs)
        except NEEDS_VALUES:
            with unset_fake_temporarily():
                leaf = _off_meta(copy.deepcopy(self.original.get_submodule(_path(path))).eval())
                zeros = tree_map_only(
                    Tensor, lambda x: torch.zeros(x.shape, device=x.device, dtype=x.dtype), (args, kwargs)
                )
                result = leaf(*zeros[0], **zeros[1])
            return tree_map_only(Tensor, self.mode.from_tensor, result)

    def _describe(self, kind: str, target: Any, node: fx.Node, pointwise: bool) -> Operation:
        if kind == "call_module":
            module, path = type(self.root.get_submodule(target)), _path(target)
            return Operation(path or module.__name__, module.__name__, module, node, False)
        module, path = self.scope.module_type, _path(self.scope.module_path)
        function = (target if isinstance(target, str) else target.__name__).strip("_")
        if target is getattr:
            function = node.args[1]
        name = path
        if not path or not _is_torch_layer(module):
            name = f"{path}.{function}" if path else function
            self._calls[name] = self._calls.get(name, -1) + 1
            name += f"_{self._calls[name]}" if self._calls[name] else ""
        return Operation(name, function, module, node, pointwise)


def _off_meta(module: nn.Module) -> nn.Module:
    """The module, with zeros on the CPU in place of weights on the meta device, where nothing has a value."""
    for child in module.modules():
        for name, weight in child.named_parameters(recurse=False):
            if weight.is_meta:
                zeros = torch.zeros(weight.shape, dtype=weight.dtype, device="cpu")
                setattr(child, name, nn.Parameter(zeros, requires_grad=False))
        for name, buffer in child.named_buffers(recurse=False):
            if buffer.is_meta:
                setattr(child, name, torch.zeros(buffer.shape, dtype=buffer.dtype, device="cpu"))
    return module


def _is_torch_layer(module: type) -> bool:
    """Whether a class is, or derives from, one of torch's modules that compute something themselves."""
    theirs = (base for base in module.__mro__ if base.__module__.startswith("torch.nn."))
    return any(base not in (nn.Module, nn.Sequential, nn.ModuleList, nn.ModuleDict) for base in theirs)


def _path(path: str) -> str:
    """A module's path in the network, from its path in `_Root`."""
    return path.removeprefix("net").lstrip(".")


def _value(proxy: fx.Proxy) -> Any:
    return proxy.node.meta["value"]


class _Proxy(fx.Proxy):
    """Stands for a value in tracing, and answers questions about its shape."""

    def __getattr__(self, name: str) -> Any:
        value = getattr(_value(self), name)
        return super().__getattr__(name) if callable(value) or isinstance(value, Tensor) else value

    def __len__(self) -> int:
        return len(_value(self))

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))  # type: ignore[index]  # torch.fx adds `__getitem__`


class _AtenRecorder(TorchDispatchMode):
    """Watches whether all elementary operations inside work on each element by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.pointwise = True

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func.namespace == "aten":
            known = torch.Tag.pointwise in func.tags or func.overloadpacket.__name__.rstrip("_") in UNTAGGED
            self.pointwise = self.pointwise and known
        return func(*args, **(kwargs or {}))


def _place(error: Exception) -> str:
    """Where in the network's code an error arose: "at FILE:LINE, `CODE` "."""
    hidden = (str(Path(torch.__file__).parent), __file__)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(hidden)]
    return f"at {frames[-1].filename}:{frames[-1].lineno}, `{frames[-1].line}` " if frames else ""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
