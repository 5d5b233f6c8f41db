"""Forward hooks: functions that are called with every output of some layers, and removed afterwards."""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from callbacks.figures.callback import untouched

ForwardHook = Callable[[nn.Module, tuple, Any], Any]  # of (module, inputs, output)


@contextmanager
def forward_hooks(pairs: Iterable[tuple[nn.Module, ForwardHook]]) -> Iterator[None]:
    """Hooks that are called after each forward pass of their modules; always removed, even after an exception.

    >>> layer, shapes = nn.Linear(2, 3), []
    >>> with forward_hooks([(layer, lambda module, inputs, output: shapes.append(tuple(output.shape)))]):
    ...     _ = layer(torch.zeros(5, 2))
    >>> _ = layer(torch.zeros(7, 2))
    >>> shapes
    [(5, 3)]
    """
    with ExitStack() as stack:
        for module, hook in pairs:
            stack.enter_context(module.register_forward_hook(hook))
        yield


def is_activation(module: nn.Module) -> bool:
    """Whether a module is an activation function: one of `torch.nn.modules.activation`, or one that acts like these.

    Another module is taken for one if it has no children, maps each number on its own, and is not affine. That is tried
    out on a copy in evaluation mode; the module itself and the global random state are left alone.

    >>> [is_activation(module) for module in (nn.GELU(), nn.Dropout(), nn.BatchNorm2d(4))]
    [True, False, False]
    """
    if isinstance(module, nn.MultiheadAttention):
        return False
    if any(kind.__module__ == nn.ReLU.__module__ for kind in type(module).__mro__):
        return True
    if type(module).__module__.startswith("torch.nn.") or any(True for _ in module.children()):
        return False
    try:
        copied = copy.deepcopy(module).to("cpu", torch.float32).eval()
    except Exception:  # not every module of a user can be copied
        return False
    # Any size, and the sizes of its vectors: they may hold one number for each channel.
    tensors = (*copied.parameters(), *copied.buffers())
    sizes = {8, *(tensor.numel() for tensor in tensors if 1 < tensor.numel() == max(tensor.shape))}
    shapes = [shape for size in sorted(sizes) for shape in ((size,), (2, size, 3, 3))]
    with untouched(copied), torch.no_grad():
        results = [_is_elementwise_nonlinear(copied.forward, shape) for shape in shapes]
    return True in results and False not in results


def _is_elementwise_nonlinear(function: Callable[[Tensor], Any], shape: tuple[int, ...]) -> bool | None:
    """Whether a function maps each number of a tensor of this shape on its own, and is not affine; None if it fails."""
    generator = torch.Generator().manual_seed(0)
    low, high = -0.1 - 9 * torch.rand(shape, generator=generator), 0.1 + 9 * torch.rand(shape, generator=generator)
    is_low = torch.rand(shape, generator=generator) < 0.5
    mixed, middle = torch.where(is_low, low, high), (low + high) / 2
    try:
        # Copies, because it may work in place.
        at_low, at_high, at_mixed, at_middle = (function(x.clone()) for x in (low, high, mixed, middle))
        if at_low.shape != shape or not at_low.is_floating_point():
            return False
        tolerance = 1e-5 * max(at_low.abs().max().item(), at_high.abs().max().item())
        is_elementwise = torch.allclose(at_mixed, torch.where(is_low, at_low, at_high), rtol=0, atol=tolerance)
        return is_elementwise and not torch.allclose(at_middle, (at_low + at_high) / 2, rtol=0, atol=tolerance)
    except Exception:  # it takes other shapes, other types, more arguments
        return None


def chosen(net: nn.Module, layers: str | list[str] | None) -> dict[str, nn.Module]:
    """The chosen modules of a net, by name.

    Args:
        net: to look in.
        layers: class names or full names of modules; None for the activation functions, or for the layers with weights
            if there are none.

    Raises:
        ValueError: if no module has such a name or class.
    """
    named = {name: module for name, module in net.named_modules() if name}
    if layers is None:
        activations = {name: module for name, module in named.items() if is_activation(module)}
        return activations or {n: m for n, m in named.items() if getattr(m, "weight", None) is not None}
    wanted = {layers} if isinstance(layers, str) else set(layers)
    found = {name: module for name, module in named.items() if wanted & {name, type(module).__name__}}
    if missing := wanted - set(found) - {type(module).__name__ for module in found.values()}:
        kinds = sorted({type(module).__name__ for module in named.values()})
        raise ValueError(
            f"there is no layer {min(missing)!r} in {type(net).__name__}: expected a class name, of "
            f"{', '.join(kinds)}, or the name of a module, such as {next(iter(named), 'none')}"
        )
    return found


class Hooks(Callback):
    """Calls `function(name, module, inputs, output)` after each forward pass of the chosen modules of `pl_module.net`.

    The hooks exist while `fit` runs (with `evaluation` in `validate` and `test` too) and are always removed
    afterwards, even after an exception.

    Args:
        function: gets the module's name in the net, the module, its inputs (a tuple) and its output. Its result is
            ignored.
        layers: see `chosen`; or a function from a module to whether it is chosen.
        evaluation: call it in evaluation mode too.

    Attributes:
        modules: the chosen ones, by name.
        active: whether the hooks exist now.

    >>> Hooks(print, layers="ReLU").active
    False
    """

    def __init__(
        self,
        function: Callable[[str, nn.Module, tuple, Any], Any],
        layers: str | list[str] | Callable[[nn.Module], bool] | None = None,
        evaluation: bool = False,
    ) -> None:
        self.function, self.layers, self.evaluation = function, layers, evaluation
        self.modules: dict[str, nn.Module] = {}
        self.active = False
        self._stack = ExitStack()  # holds `forward_hooks` open

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.remove()
        if stage != "fit" and not self.evaluation:
            return
        net = pl_module.get_submodule("net")
        if callable(self.layers):
            self.modules = {name: module for name, module in net.named_modules() if self.layers(module)}
        else:
            self.modules = chosen(net, self.layers)
        self._stack.enter_context(forward_hooks((m, self._hook(name)) for name, m in self.modules.items()))
        self.active = True

    def _hook(self, name: str) -> ForwardHook:
        def hook(module: nn.Module, inputs: tuple, output: Any) -> None:
            if module.training or self.evaluation:
                self.function(name, module, inputs, output)

        return hook

    def remove(self) -> None:
        """Removes the hooks, if they exist."""
        self._stack.close()
        self.active = False

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.remove()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.remove()
