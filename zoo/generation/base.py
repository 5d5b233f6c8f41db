"""The base of all systems that make images, and of those whose only parameter is the image itself.

B batch, C channels, H height, W width.
"""

from abc import abstractmethod
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from datamodules.batches import ContentStyle
from zoo.parts.optim.schedules import Constant
from zoo.system import ScheduleCallable, System

ADAM = partial(torch.optim.Adam, lr=0.05)


class GenerativeSystem(System):
    """Base class of models that make images and return named loss terms. A subclass defines `losses` and `sample`.

    Args:
        optimizer, schedule: see `System`.
    """

    is_first_closure_call = True

    @abstractmethod
    def losses(self, batch: Any, split: str) -> dict[str, Tensor]:
        """The loss (scalar, "loss") and whatever else is to be logged in "train", "val" or "test"."""

    @abstractmethod
    def sample(self, n: int) -> Tensor:
        """Images (n, C, H, W) in 0..1."""

    def reference_images(self) -> dict[str, Tensor]:
        """Images (C, H, W) in 0..1 to be shown next to the samples, by name."""
        return {}

    @property
    def images(self) -> ContentStyle:
        """The images of the datamodule, for systems that need one or two.

        Raises:
            ValueError: if it has none.
        """
        images = getattr(getattr(self.trainer, "datamodule", None), "images", None)
        if images is None:
            raise ValueError(
                f"{type(self).__name__} found no `images` in its data: expected a datamodule that has them; "
                "use datamodules.images.single_image.ImagePair"
            )
        return images

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.is_first_closure_call = True

    def step(self, batch: Any, split: str) -> dict[str, Tensor]:
        terms = self.losses(batch, split)
        # An optimizer such as L-BFGS evaluates the loss several times in a step; only the first is logged.
        if split != "train" or self.is_first_closure_call:
            for name, value in terms.items():
                self.log_metric(f"{split}/{name}", value.detach(), prog_bar=name == "loss", batch_size=len(batch[0]))
        self.is_first_closure_call = False
        return terms


class Canvas(nn.Module):
    """An image that is a parameter; empty until its size is known.

    Shape: () -> (1, 3, H, W).
    """

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Parameter(torch.empty(1, 3, 0, 0))
        self.register_load_state_dict_pre_hook(_take_size)

    def forward(self) -> Tensor:
        return self.image


def _take_size(canvas: Canvas, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Gives an empty canvas the size of the image that is loaded into it."""
    saved = state.get(f"{prefix}image")
    if saved is not None and not canvas.image.numel():
        canvas.image = nn.Parameter(torch.empty_like(saved, device=canvas.image.device))


class ImageOptimizer(GenerativeSystem):
    """Base class of pixel optimization: the image itself is the only parameter. A subclass defines `losses`.

    Size and start come from the datamodule's `images`. After each step the pixels are clamped to 0..1, so that the
    loss is that of the file that is written in the end; if they were clamped only there, it could more than double.

    Args:
        start: "noise" (uniform), "content" or "style" (resized to the content's size).
        optimizer, schedule: see `System`.

    Raises:
        ValueError: for an unknown start, or data without the images that are needed.
    """

    starts = ("noise", "content", "style")
    net: Canvas

    def __init__(
        self,
        start: str = "noise",
        optimizer: OptimizerCallable = ADAM,
        schedule: ScheduleCallable = Constant,
    ) -> None:
        super().__init__(optimizer, schedule)
        if start not in self.starts:
            raise ValueError(f"start is {start!r}: expected one of {', '.join(self.starts)}")
        self.start, self.net = start, Canvas()

    def sample(self, n: int) -> Tensor:
        """The image, n times: there is only one."""
        return self.net().detach().clamp(0, 1).expand(n, -1, -1, -1)

    def reference_images(self) -> dict[str, Tensor]:
        return {name: image[0] for name, image in self.images._asdict().items() if image is not None}

    def setup(self, stage: str) -> None:
        super().setup(stage)
        images = self.images
        if self.start == "style" and images.style is None:
            raise ValueError("start is 'style', but the data have no style: expected two images; add data.style")
        own, given = self.net.image.shape, images.content.shape
        if not self.net.image.numel():
            self._replace(self._initial_image(images))
        elif own != given:
            raise ValueError(
                f"the image has {own[3]}x{own[2]} pixels, but the content {given[3]}x{given[2]}: expected the same "
                "size; set data.size"
            )

    def _initial_image(self, images: ContentStyle) -> Tensor:
        if self.start == "noise":
            return torch.rand_like(images.content)
        if self.start == "content" or images.style is None:
            return images.content.clone()
        return F.interpolate(images.style, images.content.shape[2:], mode="bilinear", antialias=True)

    def _replace(self, image: Tensor) -> None:
        self.net.image = nn.Parameter(image.to(self.net.image))

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        with torch.no_grad():  # here, as checkpoints are saved before the module's own on_train_batch_end
            self.net.image.clamp_(0, 1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leaves out the history of an optimizer once the training is complete.

        That of L-BFGS has up to two hundred images. Who then trains on, with more epochs, begins a new one.
        """
        super().on_save_checkpoint(checkpoint)
        for optimizer in checkpoint.get("optimizer_states", ()):
            kept = [value for of_parameter in optimizer["state"].values() for value in of_parameter.values()]
            has_history = any(isinstance(value, list) for value in kept)
            if has_history and self.trainer.global_step >= self.trainer.estimated_stepping_batches:
                optimizer["state"] = {}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint["state_dict"].get("net.image")
        if saved is not None and not self.net.image.numel():  # loaded outside a Trainer, where there are no data
            self._replace(torch.empty(saved.shape))
        super().on_load_checkpoint(checkpoint)
