"""Mixed precision: one CNN trained in float32, and with bfloat16 and float16 beside it, in time, memory and accuracy.

    python -m experiments.studies.mixed_precision [FOLDER]

writes mixed_precision.png and mixed_precision.csv. A residual net (zoo.classification.resnet_mini) learns CIFAR-10, or
scikit-learn's digits where CIFAR-10 is not at hand. All that differs is the Trainer's `precision`. Weights, optimizer,
statistics of the norms and the loss, with softmax as the last activation, stay float32; convolutions and what lies
between them have 16 bits; in float16 the loss is scaled, so that small gradients do not become zero (Micikevicius et
al. 2018, "Mixed Precision Training", section 3). Pixels are divided by 255. On a CPU the net is an eighth as wide and
the training short. A precision that the device does not compute in is not timed; the table says what is missing. The
first ten steps are not timed. `peak MiB` is the most that CUDA allocated in training. `saved MiB` is what a forward
pass saves for the backward pass, weights apart, counted on tensors without values and thus for any device: half in 16
bits. The whole shrinks by less, as weights, gradients and momentum stay as they are.
"""

import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch._subclasses.fake_tensor import FakeTensorMode

from callbacks.figures.style import BLUE, GRAY, GREEN, ORANGE
from datamodules.augment.images import Crop, Flip
from datamodules.image import ImageData
from datamodules.images.cifar10 import CIFAR10
from datamodules.images.digits import Digits
from experiments.studies import Row, panels, publish, run
from zoo.classification.base import SGD
from zoo.classification.resnet_mini import ResNetMini

PRECISIONS = {"32-true": (None, BLUE), "bf16-mixed": (torch.bfloat16, GREEN), "16-mixed": (torch.float16, ORANGE)}
BATCHES, UNTIMED, MIB = (64, 128, 256, 512), 10, 2**20
CUDA = torch.cuda.is_available()
WIDTHS, BATCH, STEPS = ((128, 256, 512), 512, 784) if CUDA else ((16, 32, 64), 64, 120)  # 784: eight epochs


def missing(precision: str) -> str:
    """What the device lacks for a precision; "" if it has all."""
    flags: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    if CUDA:
        return "" if precision != "bf16-mixed" or torch.cuda.is_bf16_supported(False) else "compute capability 8.0"
    bf16 = "" if flags.get("avx512_bf16") or flags.get("amx_bf16") else "a CPU with AVX512-BF16 or AMX"
    return {"bf16-mixed": bf16, "16-mixed": "a CUDA device"}.get(precision, "")


def model(data: ImageData) -> ResNetMini:
    optimizer = partial(SGD, lr=0.1 * data.batch_size / 128)
    return ResNetMini(data.num_classes, data.in_channels, widths=WIDTHS, stem_pool=False, optimizer=optimizer)


class Measure(Callback):
    """The loss of each step, and the times at which the first steps and the training ended."""

    def __init__(self, steps: int) -> None:
        self.losses: list[torch.Tensor] = []
        self.times: list[float] = []
        self.read_clock_at = (min(UNTIMED, steps - 1), steps)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        self.losses.append(outputs["loss"].detach())
        if trainer.global_step in self.read_clock_at:
            if CUDA:
                torch.cuda.synchronize()
            self.times.append(time.perf_counter())


def saved_bytes(dtype: torch.dtype | None, data: ImageData) -> float:
    """Bytes that the forward pass of an image saves for the backward pass; nothing is computed."""
    module, totals = model(data), []
    for batch_size in (16, 32):  # the difference leaves out weights and all else that any batch has once
        saved: list[torch.Tensor] = []
        keep = torch.autograd.graph.saved_tensors_hooks(saved.append, lambda x: x)  # without backward no second call
        autocast = torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None)
        with FakeTensorMode(allow_non_fake_inputs=True), keep, autocast:
            logits = module(torch.empty(batch_size, *data.image_shape))
            module.loss(logits, torch.zeros(batch_size, dtype=torch.long), "train")
        totals.append(sum({x.untyped_storage()._cdata: x.untyped_storage().nbytes() for x in saved}.values()))
    return (totals[1] - totals[0]) / 16


def train(precision: str, data: ImageData, steps: int) -> tuple[Row, list[float]]:
    """Trains the net; the measured cells of the table, and the loss of each step."""
    torch.manual_seed(0)
    module, measure = model(data), Measure(steps)
    trainer = Trainer(
        accelerator="cuda" if CUDA else "cpu", devices=1, precision=precision, max_steps=steps, callbacks=[measure],  # type: ignore[arg-type]
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    trainer.fit(module, datamodule=data)
    seconds = (measure.times[1] - measure.times[0]) / (steps - measure.read_clock_at[0])
    share = trainer.test(module, datamodule=data, verbose=False)[0]["test/acc"]
    cells: Row = {"ms a step": 1e3 * seconds, "images/s": data.batch_size / seconds}
    cells["peak MiB"] = torch.cuda.max_memory_allocated() / MIB if CUDA else None
    return cells | Row({"test accuracy, %": 100 * share}), torch.stack(measure.losses).tolist()


def draw_bars(axes: Axes, rows: list[Row], column: str) -> None:
    for place, row in enumerate(rows):
        value = float(row[column] or 0)
        axes.barh(place, value, 0.6, color=PRECISIONS[str(row["precision"])][1])
        text = f"{value:.1f}" if value else f"needs {row['missing']}"
        axes.annotate(text, (value, place), (4, 0), textcoords="offset points", va="center", size=9, color=GRAY)
    axes.set_yticks(range(len(rows)), list(PRECISIONS))
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlim=(0, 1.15 * max(float(row[column] or 0) for row in rows)))


def draw(rows: list[Row], losses: dict[str, list[float]], data: ImageData) -> Figure:
    titles = ["Training loss", "Milliseconds a step", "Saved for the backward pass", "Test accuracy, %"]
    title = f"Training on {type(data).__name__} in three precisions: {rows[0]['device']}"
    figure, (left, times, memory, accuracy) = panels(title, 2, 2, (11, 7), titles)
    for axes, column in ((times, "ms a step"), (accuracy, "test accuracy, %")):
        draw_bars(axes, rows, column)
    for (name, (dtype, color)), width in zip(PRECISIONS.items(), (2, 6, 2), strict=True):
        values, alpha = losses.get(name, []), 0.4 if width > 2 else 1  # bfloat16 and float16 need the same memory
        smooth = [statistics.fmean(values[max(0, i - 9) : i + 1]) for i in range(len(values))]
        left.plot(range(1, len(values) + 1), smooth, color=color, label=name if values else f"{name}: not trained")
        style: dict[str, Any] = {"color": color, "marker": "o", "markersize": 4, "linewidth": width, "alpha": alpha}
        memory.plot(BATCHES, torch.tensor(BATCHES) * saved_bytes(dtype, data) / MIB, label=name, **style)
    left.set(xlabel="step (mean of ten)", ylabel="cross-entropy in nats")
    memory.axhline(BATCHES[-2] * saved_bytes(None, data) / MIB, color=GRAY, linestyle=":", linewidth=1)
    memory.set(xlabel=f"batch size (dotted: float32 with {BATCHES[-2]})", ylabel="MiB", ylim=(0, None), xticks=BATCHES)
    for axes in (left, memory):
        axes.legend(frameon=False)
    return figure


def main(folder: Path, data: ImageData | None = None, steps: int = STEPS) -> None:
    cifar10 = CIFAR10(batch_size=BATCH, val_size=0, augment=[Crop(2), Flip()])
    there = all((Path(cifar10.data_dir) / name).is_file() for name in cifar10.checksums)
    data = data or (cifar10 if there else Digits(batch_size=BATCH, val_size=0))
    rows, losses = list[Row](), dict[str, list[float]]()
    device = torch.cuda.get_device_name() if CUDA else f"a CPU with {torch.backends.cpu.get_cpu_capability()}"
    for name, (dtype, _) in PRECISIONS.items():
        cells: Row = dict.fromkeys(("ms a step", "images/s", "peak MiB", "test accuracy, %"))
        if not missing(name):
            cells, losses[name] = train(name, data, steps)
        saved: Row = {"saved MiB": data.batch_size * saved_bytes(dtype, data) / MIB, "missing": missing(name)}
        rows.append({"precision": name, "device": device, "batch size": data.batch_size, **cells, **saved})
    publish(folder, "mixed_precision", draw(rows, losses, data), rows)


if __name__ == "__main__":
    run(main, __doc__)
