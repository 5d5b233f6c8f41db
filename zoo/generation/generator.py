"""The one training step of all systems that make images. B batch, C channels, H height, W width."""

from typing import Any

from torch import Tensor

from zoo.system import System


class Generator(System):
    """Trains whatever tells the parts of its loss. A subclass defines `losses` and `sample`.

    Args:
        optimizer, schedule: see `System`.
    """

    def losses(self, batch: Any, stage: str) -> dict[str, Tensor]:
        """The loss (scalar, "loss") and whatever else is to be logged in "train", "val" or "test"."""
        raise TypeError(f"{type(self).__name__} must define `losses`")

    def sample(self, n: int) -> Tensor:
        """Images (n, C, H, W) in 0..1."""
        raise TypeError(f"{type(self).__name__} must define `sample`")

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        return self._step(batch, "train")

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        return self._step(batch, "val")

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        return self._step(batch, "test")

    def _step(self, batch: Any, stage: str) -> dict[str, Tensor]:
        parts = self.losses(batch, stage)
        for name, value in parts.items():
            self.log(f"{stage}/{name}", value, on_step=False, on_epoch=True, prog_bar=name == "loss", sync_dist=True)
        return parts
