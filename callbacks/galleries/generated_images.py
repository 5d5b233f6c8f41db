"""The images that a generative system makes while it learns. C channels, H height, W width."""

from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from torch import Tensor

from callbacks.figures.callback import FigureCallback, untouched
from callbacks.figures.grids import columns_for, grid
from callbacks.figures.style import pixels, save_image

MAX_PREVIEWS = 8  # that are kept and drawn


class GeneratedImages(FigureCallback):
    """Draws `pl_module.sample(n)` as a grid to `pictures/samples.png`, and saves each sample as a PNG of its own size.

    That is at the end of `fit`, `validate` and `test`, and optionally during `fit`. The sample of n = 1 is named
    `pictures/result.png`, several are `pictures/sample_0.png` and so on. The grid begins with the images of
    `pl_module.reference_images()`, if the module defines it. `pictures/progress.png` shows how the first sample changes
    over the training: at most 8 previews, which are saved in checkpoints.

    Args:
        n: number of samples.
        every_n_steps, every_n_epochs: draw during `fit` too; 0 disables.
        columns: of the grid; by default one row for up to five images, else about as many columns as rows.

    Attributes:
        previews: step -> image (H, W, C) uint8, in order.

    Raises:
        ValueError: for n or columns below 1, or a module without `sample`.
    """

    def __init__(self, n: int = 1, every_n_steps: int = 0, every_n_epochs: int = 0, columns: int | None = None) -> None:
        if n < 1 or (columns is not None and columns < 1):
            raise ValueError(f"n is {n} and columns {columns}: expected 1 or more")
        self.n, self.every_n_steps, self.every_n_epochs, self.columns = n, every_n_steps, every_n_epochs, columns
        self.previews: dict[int, np.ndarray] = {}

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Samples, writes and publishes; on rank zero only."""
        if not trainer.is_global_zero:
            return
        with untouched(pl_module), torch.no_grad(), trainer.precision_plugin.forward_context():
            pl_module.eval()
            samples = [pixels(sample) for sample in pl_module.sample(self.n)]  # type: ignore[operator]
            references: dict[str, Tensor] = getattr(pl_module, "reference_images", dict)()
        images = {name: pixels(image) for name, image in references.items()}
        for i, sample in enumerate(samples):
            save_image(sample, self.folder / ("result.png" if self.n == 1 else f"sample_{i}.png"))
        height, width = samples[0].shape[:2]
        title = f"{type(pl_module).__name__} after {trainer.global_step} steps"
        subtitle = f"{self.n} sample{'s' * (self.n > 1)} of {width}x{height} pixels"
        names = [*images, *(map(str, range(self.n)) if self.n > 1 else ["sample"])]
        columns = self.columns or columns_for(len(names))
        self.publish(trainer, "samples", grid([*images.values(), *samples], names, title, subtitle, columns))
        if trainer.state.fn == "fit":
            self._keep_preview(trainer.global_step, samples[0])

    def _keep_preview(self, step: int, image: np.ndarray) -> None:
        """Adds a preview; of too many it drops the one with the nearest neighbors, of equals the latest."""
        self.previews[step] = image
        if len(self.previews) > MAX_PREVIEWS:  # the first and the last one always stay
            steps = list(self.previews)
            crowded = min(range(MAX_PREVIEWS - 1, 0, -1), key=lambda i: steps[i + 1] - steps[i - 1])
            del self.previews[steps[crowded]]

    def _draw_progress(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and len(self.previews) > 1:
            names = [f"step {step}" for step in self.previews]
            title = f"{type(pl_module).__name__} over the steps"
            figure = grid(list(self.previews.values()), names, title, "the first sample", len(names))
            self.publish(trainer, "progress", figure)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if not callable(getattr(pl_module, "sample", None)):
            raise ValueError(
                f"{type(pl_module).__name__} has no `sample`: expected sample(n) that returns images (n, C, H, W); "
                "define it, or leave out GeneratedImages"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.previews = {step: image for step, image in self.previews.items() if step <= trainer.global_step}
        self._draw_if(bool(self.every_n_steps or self.every_n_epochs), trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        due = self.every_n_steps > 0 and trainer.global_step % self.every_n_steps == 0
        self._draw_if(due, trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        due = self.every_n_epochs > 0 and (trainer.current_epoch + 1) % self.every_n_epochs == 0
        self._draw_if(due, trainer, pl_module)

    def _draw_if(self, due: bool, trainer: Trainer, pl_module: LightningModule) -> None:
        if due and trainer.global_step not in self.previews:
            self.draw(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw_if(True, trainer, pl_module)
        self._draw_progress(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit":
            self.draw(trainer, pl_module)

    on_test_end = on_validation_end

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if trainer.state.fn == "fit":
            self._draw_progress(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        return {"previews": {step: torch.from_numpy(image) for step, image in self.previews.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.previews = {step: image.numpy() for step, image in state["previews"].items()}
