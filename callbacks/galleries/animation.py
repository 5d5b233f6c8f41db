"""The animation of a system whose result is a process in time. C channels, H height, W width."""

import torch
from lightning import LightningModule, Trainer

from callbacks.figures.animation import strip, write_gif
from callbacks.figures.callback import FigureCallback, untouched
from callbacks.figures.style import pixels


class Animation(FigureCallback):
    """Draws `pl_module.rollout(frames)` after training and testing, to `pictures/animation.gif` and `animation.png`.

    The GIF has all frames, the PNG some of them side by side. `rollout` yields images (C, H, W) in 0..1, which are
    `pl_module.steps_per_frame` steps apart (1 without that attribute).

    Args:
        frames: number of frames.
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
                f"{type(pl_module).__name__} has no `rollout`: expected rollout(frames) that yields images (C, H, W); "
                "define it, or leave out Animation"
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        with untouched(pl_module), torch.no_grad(), trainer.precision_plugin.forward_context():
            pl_module.eval()
            images = [pixels(image) for image in pl_module.rollout(self.frames)]  # type: ignore[operator]
        write_gif(self.folder / "animation.gif", images, self.fps)
        every, name = getattr(pl_module, "steps_per_frame", 1), type(pl_module).__name__
        self.publish(trainer, "animation", strip(images, every, f"{name} after {trainer.global_step} training steps"))

    on_test_end = on_train_end
