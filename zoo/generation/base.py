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

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.is_first_closure_call = True

    def step(self, batch: Any, split: str) -> dict[str, Tensor]:
        parts = self.losses(batch, split)
        # An optimizer such as L-BFGS evaluates the loss several times in a step; only the first is logged.
        if split != "train" or self.is_first_closure_call:
            for name, value in parts.items():
                self.log_metric(f"{split}/{name}", value.detach(), prog_bar=name == "loss", batch_size=len(batch[0]))
        self.is_first_closure_call = False
        return parts


class Canvas(nn.Module):
    """A picture that is a parameter; empty until its size is known.

    Shape: () -> (1, 3, H, W).
    """

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Parameter(torch.empty(1, 3, 0, 0))

    def forward(self) -> Tensor:
        return self.image


class ImageOptimizer(GenerativeSystem):
    """Optimises a picture itself, which is the only parameter. A subclass defines `losses`.

    The size and the start come from the datamodule's `pictures`. After each step the picture is put back into 0..1, so
    that its loss is that of the file written in the end; for one that is cut only there it can more than double.

    Args:
        start: "noise" (uniform), "content" or "style" (enlarged or reduced to the content's size).
        optimizer, schedule: see `System`.

    Raises:
        ValueError: for an unknown start, or data without the pictures that are needed.
    """

    starts = ("noise", "content", "style")

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
        """The picture, n times: there is only one."""
        return self.net().detach().clamp(0, 1).expand(n, -1, -1, -1)

    def reference_images(self) -> dict[str, Tensor]:
        pictures = self.trainer.datamodule.pictures._asdict()
        return {name: picture[0] for name, picture in pictures.items() if picture is not None}

    def setup(self, stage: str) -> None:
        super().setup(stage)
        pictures = getattr(self.trainer.datamodule, "pictures", None)
        if pictures is None:
            raise ValueError(
                f"{type(self).__name__} found no `pictures` in its data: expected a datamodule that has them; "
                "use datamodules.images.single_image.ImagePair"
            )
        if self.start == "style" and pictures.style is None:
            raise ValueError("start is 'style', but the data have no style: expected two pictures; add data.style")
        here, there = self.net.image.shape, pictures.content.shape
        if not self.net.image.numel():
            self._place(self._first(pictures))
        elif here != there:
            raise ValueError(
                f"the picture has {here[3]}x{here[2]} pixels, but the content {there[3]}x{there[2]}: expected the "
                "same size; set data.size"
            )

    def _first(self, pictures: ContentStyle) -> Tensor:
        if self.start == "noise":
            return torch.rand_like(pictures.content)
        if self.start == "content":
            return pictures.content.clone()
        return F.interpolate(pictures.style, pictures.content.shape[2:], mode="bilinear", antialias=True)

    def _place(self, image: Tensor) -> None:
        self.net.image = nn.Parameter(image.to(self.net.image))

    def on_train_batch_end(self, *_: Any) -> None:
        with torch.no_grad():
            self.net.image.clamp_(0, 1)

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        saved = checkpoint["state_dict"].get("net.image")
        if saved is not None and not self.net.image.numel():  # loaded outside a Trainer, where there are no data
            self._place(torch.empty(saved.shape))
        super().on_load_checkpoint(checkpoint)
