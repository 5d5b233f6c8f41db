"""The first epochs of a fine-tuning, in which only the head learns."""

from lightning import Callback, LightningModule, Trainer
from torch import nn


class FreezeBackbone(Callback):
    """Keeps all layers but the head as they are for the first epochs, so that a new head does not spoil good weights.

    What is frozen is `pl_module.backbone`; its norms use and keep their running statistics, and it has no dropout. The
    optimizer has all parameters from the start, and passes over those without a gradient: unlike with Lightning's
    `BackboneFinetuning`, which adds them later, parameters may have names, and schedules go on as they were.

    With several processes the strategy must be `ddp_find_unused_parameters_true`.

    Args:
        epochs: how many.

    Raises:
        ValueError: if that is less than 1, or the module has no `backbone`.

    >>> FreezeBackbone(2).epochs
    2
    """

    def __init__(self, epochs: int = 1) -> None:
        if epochs < 1:
            raise ValueError(f"epochs is {epochs}: expected 1 or more; leave out FreezeBackbone")
        self.epochs = epochs
        self._frozen: list[nn.Parameter] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not isinstance(getattr(pl_module, "backbone", None), nn.Module):
            raise ValueError(
                f"{type(pl_module).__name__} has no `backbone` to freeze: expected a module with all layers but the "
                "head; add it, or leave out FreezeBackbone"
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        backbone = pl_module.backbone
        assert isinstance(backbone, nn.Module)
        if trainer.current_epoch < self.epochs:
            self._frozen += [p for p in backbone.parameters() if p.requires_grad]
            backbone.requires_grad_(False).eval()
        elif self._frozen:
            self._thaw()
            backbone.train()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._thaw()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._thaw()

    def _thaw(self) -> None:
        for parameter in self._frozen:
            parameter.requires_grad = True
        self._frozen = []
