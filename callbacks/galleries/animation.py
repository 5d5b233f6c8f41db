"""What grows, moves: the film of a system in which time is a part. C channels, H height, W width."""

import torch
from lightning import LightningModule, Trainer

from callbacks.figures.animation import strip, write_gif
from callbacks.figures.callback import FigureCallback, untouched
from callbacks.figures.style import pixels


class Animation(FigureCallback):
    """Shows `pl_module.rollout(frames)` after training and testing: `pictures/film.gif`, and some frames in `film.png`.

    The film yields images (C, H, W) in 0..1, `pl_module.steps_per_frame` steps apart (1 if it says nothing).

    Args:
        frames: of the film.
        fps: frames a second.

    Raises:
        ValueError: for fewer than 2 frames or 1 frame a second, or a module without `rollout`.
    """

    def __init__(self, frames: int = 90, fps: int = 20) -> None:
        if frames < 2 or fps < 1:
            raise ValueError(f"frames is {frames} and fps {fps}: expected 2 and 1 or more")
        self.frames, self.fps = frames, fps

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if not callable(getattr(pl_module, "rollout", None)):
            raise ValueError(
                f"{type(pl_module).__name__} has no `rollout`: expected film(frames) that yields (C, H, W)"
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        with untouched(pl_module), torch.no_grad(), trainer.precision_plugin.forward_context():
            pl_module.eval()
            images = [pixels(image) for image in pl_module.rollout(self.frames)]
        write_gif(self.folder / "film.gif", images, self.fps)
        every, name = getattr(pl_module, "steps_per_frame", 1), type(pl_module).__name__
        self.publish(trainer, "rollout", strip(images, every, f"{name} after {trainer.global_step} training steps"))

    on_test_end = on_train_end
