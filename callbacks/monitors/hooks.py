"""Functions that see what every layer puts out while a net trains, and are gone when it has."""

from collections.abc import Callable
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn


def is_activation(module: nn.Module) -> bool:
    """Whether a module is an activation function: torch's, or one from a file called activations.py."""
    home = type(module).__module__.rpartition(".")[2]
    return home in ("activation", "activations") and not isinstance(module, nn.MultiheadAttention)


def chosen(net: nn.Module, layers: str | list[str] | None) -> dict[str, nn.Module]:
    """The modules of a net that are meant, by name.

    Args:
        net: to look in.
        layers: class names or full names of modules; None for the activation functions, or where there are none for
            the layers with weights.

    Raises:
        ValueError: if nothing is called so.
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

    Hooks are there while `fit` runs (`validate` and `test` too, with `evaluation`) and always removed behind it, also
    after an exception.

    Args:
        function: gets the module's name in the net, itself, its inputs (a tuple) and its output. What it returns is
            ignored.
        layers: see `chosen`; or a function of a module that says whether it is meant.
        evaluation: call it in evaluation mode too.

    Attributes:
        modules: the chosen ones, by name.
        handles: of the hooks, while they are there.

    >>> Hooks(print, layers="ReLU").handles
    []
    """

    def __init__(
        self,
        function: Callable[[str, nn.Module, tuple, Any], None],
        layers: str | list[str] | Callable[[nn.Module], bool] | None = None,
        evaluation: bool = False,
    ) -> None:
        self.function, self.layers, self.evaluation = function, layers, evaluation
        self.modules: dict[str, nn.Module] = {}
        self.handles: list[torch.utils.hooks.RemovableHandle] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.remove()
        if stage != "fit" and not self.evaluation:
            return
        if callable(self.layers):
            self.modules = {name: module for name, module in pl_module.net.named_modules() if self.layers(module)}
        else:
            self.modules = chosen(pl_module.net, self.layers)
        self.handles = [module.register_forward_hook(self._hook(name)) for name, module in self.modules.items()]

    def _hook(self, name: str) -> Callable[[nn.Module, tuple, Any], None]:
        def hook(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            if module.training or self.evaluation:
                self.function(name, module, inputs, output)

        return hook

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles = []

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.remove()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.remove()
