"""LSUV: initialization by the data. Inputs and outputs of layers have any shape.

Mishkin and Matas 2016, "All you need is a good init", algorithm 1.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from callbacks.figures.callback import untouched
from callbacks.monitors.hooks import forward_hooks

Layer = nn.Linear | _ConvNd


class LayerReport(NamedTuple):
    """Mean and standard deviation of a layer's output before and after; `note` says what could not be done."""

    name: str
    before: tuple[float, float]
    after: tuple[float, float]
    note: str


class LSUV(Callback):
    """Scales weights and moves biases until each layer's output has mean 0 and standard deviation 1 on the first batch.

    Runs once, on the first batch of training and in the order in which the layers run, with the net in training mode;
    that costs a few forward passes for each layer. Modules whose `is_initialized` is true are left alone, because they
    were loaded from a checkpoint or initialized by LSUV before; so are resumed trainings. Frozen layers, and those that
    share their weight with others, are left as they are; layers without bias (because a norm follows) keep their mean.
    With several processes, statistics are taken over all their batches, and all end equal.

    Differs from the paper in also moving the mean, as fast.ai's lesson 17 does, and in starting from the present
    weights: for the paper's orthonormal start, give the net `torch.nn.init.orthogonal_` as its initialization.

    Args:
        of: class of the activations, such as `GeneralReLU`, whose output is normalized where they follow a layer
            immediately (the lesson). None normalizes the outputs of the layers themselves (the paper), whatever the
            activation: the outputs of many cannot have mean 0 and standard deviation 1.
        tolerance: greatest distance from 0 and 1; at low precision (bfloat16), four rounding errors if that is more.
        rounds: greatest number of corrections to a layer.

    Attributes:
        report: a `LayerReport` for each layer, in the order in which they run.
        done: whether this training was initialized, or needed no initialization.

    Raises:
        ValueError: if an output cannot be brought to mean 0 and standard deviation 1, or `of` follows no layer.
    """

    def __init__(self, of: type[nn.Module] | None = None, tolerance: float = 1e-3, rounds: int = 50) -> None:
        self.of, self.tolerance, self.rounds = of, tolerance, rounds
        self.report: list[LayerReport] = []
        self.done = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.done = False  # a checkpoint that is resumed is loaded after this

    def state_dict(self) -> dict[str, bool]:
        return {"done": self.done}

    def load_state_dict(self, state_dict: dict[str, bool]) -> None:
        self.done = state_dict["done"]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if not (self.done or trainer.global_step or getattr(pl_module, "is_initialized", False)):
            inputs = batch if isinstance(batch, Tensor) else batch[0]
            with untouched(pl_module), unchanged_buffers(pl_module), torch.no_grad():
                self.normalize(trainer, pl_module, inputs)
        self.done = True
        pl_module.is_initialized = True  # type: ignore[assignment]

    def normalize(self, trainer: Trainer, pl_module: LightningModule, inputs: Tensor) -> None:
        """Normalizes all layers on a batch of inputs, and reports it."""

        def forward() -> None:
            torch.manual_seed(0)  # so that dropout drops the same values in each pass
            pl_module(inputs)

        def measure(layer: nn.Module, act: nn.Module | None) -> tuple[float, float]:
            count, total, squares = trainer.strategy.reduce(sums(layer, act, forward), reduce_op="sum").tolist()
            mean = total / count
            return mean, math.sqrt(max(squares - count * mean**2, 0.0) / max(count - 1, 1))

        self.report = []
        names = {module: name for name, module in pl_module.named_modules()}
        pairs = in_order(pl_module, self.of, forward)
        if self.of is not None and not any(act for _, act in pairs):
            raise ValueError(
                f"LSUV: no {self.of.__name__} follows a convolution or linear layer immediately: "
                "expected the class of the activations; leave `of` out to normalize the layers themselves"
            )
        for layer, act in pairs:
            before = measure(layer, act)
            if before[1] == 0:
                self.report.append(LayerReport(names[layer], before, before, "left as it is: its output is constant"))
                continue
            after = self._correct(layer, before, measure=partial(measure, layer, act), name=names[act or layer])
            note = "" if layer.bias is not None else "keeps its mean: it has no bias"
            self.report.append(LayerReport(names[layer], before, after, note))
        notes = "".join(f"\n  {row.name} {row.note}" for row in self.report if row.note)
        rank_zero_info(f"LSUV: {len(self.report)} layers brought to mean 0 and standard deviation 1{notes}")

    def _correct(
        self, layer: Layer, found: tuple[float, float], measure: Callable[[], tuple[float, float]], name: str
    ) -> tuple[float, float]:
        """Corrects a layer until its mean and standard deviation, at first `found`, are right; returns them."""
        tolerance = max(self.tolerance, 4 * torch.finfo(layer.weight.dtype).eps)
        kept = {key: value.clone() for key, value in layer.named_parameters()}
        for _ in range(self.rounds):
            mean, std = found
            if (layer.bias is None or abs(mean) < tolerance) and abs(std - 1) < tolerance:
                return found
            if not (std > 0 and math.isfinite(mean + std)):
                break
            layer.weight.div_(std)
            if layer.bias is not None:
                layer.bias.sub_(mean).div_(std)
            found = measure()
        for key, value in layer.named_parameters():
            value.copy_(kept[key])
        raise ValueError(
            f"LSUV: the output of {name} does not reach mean 0 and standard deviation 1 (it stays at {found[0]:.3g} "
            f"and {found[1]:.3g}): expected finite data and an activation with values far enough above and below 0; "
            "leave `of` out to normalize the layers themselves"
        )


def in_order(
    module: nn.Module, of: type[nn.Module] | None, forward: Callable[[], None]
) -> list[tuple[Layer, nn.Module | None]]:
    """The layers that can be normalized, as they run, each with the activation of class `of` that takes its output."""
    weights = [p for child in module.modules() for p in child._parameters.values() if p is not None]
    uses = {id(p): sum(p is other for other in weights) for p in weights}
    layers = [child for child in module.modules() if isinstance(child, Layer)]
    # Left out are weights that are computed (weight norm), frozen, or shared with another layer.
    own = [x for x in layers if (p := x._parameters.get("weight")) is not None and p.requires_grad and uses[id(p)] == 1]
    found: dict[Any, tuple[Tensor, list[nn.Module]]] = {}  # by layer

    def at_layer(layer: nn.Module, _: Any, output: Tensor) -> None:
        found.setdefault(layer, (output, []))

    def at_act(act: nn.Module, inputs: tuple, _: Tensor) -> None:
        for output, acts in found.values():
            if inputs[0] is output:
                acts.append(act)

    acts = [] if of is None else [child for child in module.modules() if isinstance(child, of)]
    with forward_hooks([*((x, at_layer) for x in own), *((x, at_act) for x in acts)]):
        forward()
    return [(layer, acts[0] if acts else None) for layer, (_, acts) in found.items()]


def sums(layer: nn.Module, act: nn.Module | None, forward: Callable[[], None]) -> Tensor:
    """Number, sum and sum of squares (3,) of the layer's output, or of `act`'s output for it, in a forward pass."""
    collected: list[Tensor] = []
    last: list[Tensor] = []  # output of the layer

    def collect(x: Tensor) -> None:
        x = x.detach().float()
        collected.append(torch.stack([x.new_tensor(x.numel()), x.sum(), x.square().sum()]))

    def at_layer(_: nn.Module, inputs: tuple, output: Tensor) -> None:
        last[:] = [output]
        if act is None:
            collect(output)  # now, because an activation may overwrite it

    def at_act(_: nn.Module, inputs: tuple, output: Tensor) -> None:
        if last and inputs[0] is last[0]:
            collect(output)

    with forward_hooks([(layer, at_layer), *([(act, at_act)] if act is not None else [])]):
        forward()
    return torch.stack(collected).sum(0)


@contextmanager
def unchanged_buffers(module: nn.Module) -> Iterator[None]:
    """Restores the buffers, such as running statistics, whatever is computed inside."""
    kept = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, value in kept:
            buffer.copy_(value)
