"""Where a classifier looked: class activation maps. B batch, C channels, H height, W width, K classes.

Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", and its
relatives, as the package grad-cam has them.
"""

import matplotlib
import numpy as np
import pytorch_grad_cam
import torch
from lightning import LightningModule, Trainer
from matplotlib.cm import ScalarMappable
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor

from callbacks.misclassified import MisclassifiedGallery
from callbacks.pictures import GREY, caption, cells, class_names, draw_image, rgb, untouched
from callbacks.samples import SPLITS, SampleGallery

METHODS = tuple(
    name
    for name, kind in vars(pytorch_grad_cam).items()
    if isinstance(kind, type) and issubclass(kind, BaseCAM) and name != "FullGrad"  # which takes no target layer
)
SMALLEST = 5  # of a map worth looking at, in cells: stretched over the image, fewer say nothing about where
COLOURS = matplotlib.colormaps["inferno"]  # rises evenly in lightness: right for any colour vision, and in print
ALPHA = 0.6  # of the map over the image


class GradCAMGallery(SampleGallery):
    """Draws each image beside its relevance map, to `pictures/gradcam_<split>.png`.

    The net is `pl_module.net`, the layer `pl_module.cam_target`, and `pl_module.cam_reshape`, if there, turns its
    output into maps (B, D, H, W). Everything is tried out on one blank image before training starts.

    Args:
        n: images to draw.
        method: class of the package grad-cam, one of `METHODS`.
        of: "mistakes", those of the `MisclassifiedGallery` beside it or else the worst, or "first", right or wrong.
        target: the class whose evidence is shown, "prediction" or "truth".
        every_n_epochs: see `SampleGallery`.

    Raises:
        ValueError: for an unknown argument, a module without `cam_target`, or maps smaller than 5x5.

    >>> GradCAMGallery(5, method="LayerCAM", of="first").order
    'first'
    """

    def __init__(
        self,
        n: int = 10,
        method: str = "GradCAM",
        of: str = "mistakes",
        target: str = "prediction",
        every_n_epochs: int = 0,
    ) -> None:
        for value, known in ((method, METHODS), (of, ("mistakes", "first")), (target, ("prediction", "truth"))):
            if value not in known:
                raise ValueError(f"{value!r} is unknown to GradCAMGallery: expected one of {', '.join(known)}")
        super().__init__(n, "first" if of == "first" else "worst", every_n_epochs)
        self.method, self.of, self.target = method, of, target

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._tried = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        shape = getattr(trainer.datamodule, "image_shape", None)
        if shape is not None:
            self._try(pl_module, torch.zeros(shape))

    on_test_start = on_validation_start = on_fit_start

    def _try(self, pl_module: LightningModule, image: Tensor) -> None:
        """Fails now, rather than after hours of training."""
        if not self._tried:
            self.relevance(pl_module, image[None], [0])
            self._tried = True

    def _collect(self, trainer: Trainer, outputs: object, batch: tuple) -> None:
        self._try(trainer.lightning_module, batch[0][0])  # for data that don't tell their `image_shape`
        super()._collect(trainer, outputs, batch)

    def gather(self, trainer: Trainer) -> None:
        beside = [c for c in trainer.callbacks if isinstance(c, MisclassifiedGallery)]
        if self.of == "mistakes" and beside:
            beside[0].gather(trainer)
            self.shown, self.seen, self.mistakes = beside[0].shown[: self.n], beside[0].seen, beside[0].mistakes
        else:
            super().gather(trainer)

    def relevance(self, pl_module: LightningModule, images: Tensor, classes: list[int]) -> tuple[np.ndarray, str]:
        """Images (B, C, H, W), normalised, and a class for each -> maps (B, H, W) in 0..1, "layer, HxW"."""
        layer = getattr(pl_module, "cam_target", None)
        if layer is None:
            raise ValueError(
                f"{type(pl_module).__name__} doesn't say which layer to draw: expected an attribute or property "
                "`cam_target`, a module inside `self.net`; add it, or leave out GradCAMGallery"
            )
        name = next((name for name, module in pl_module.net.named_modules() if module is layer), "")
        reshape, size = getattr(pl_module, "cam_reshape", None) or (lambda output: output), []

        def checked(output: Tensor) -> Tensor:
            maps = reshape(output)
            size[:] = maps.shape[2:]
            if maps.ndim != 4 or min(size) < SMALLEST:
                raise ValueError(
                    f"{name} of {type(pl_module).__name__} gives maps of {tuple(maps.shape)}: expected (B, D, H, W) "
                    f"with H and W of {SMALLEST} or more; choose an earlier layer as `cam_target`"
                    + (" or give a `cam_reshape`" if maps.ndim != 4 else "")
                )
            return maps.float().clone()  # NumPy has no bfloat16; what follows in the net may write in place

        net = pl_module.net
        weight = next(net.parameters())
        # Evaluation runs in inference mode, which knows no gradients; tensors made in it have to be cloned outside it.
        with (
            torch.inference_mode(False),
            untouched(net),
            torch.enable_grad(),
            torch.autocast(weight.device.type, enabled=False),
        ):
            images = images.clone().to(weight).requires_grad_()
            net.requires_grad_(False)  # the maps need the gradients of activations only, which the images carry
            cam = getattr(pytorch_grad_cam, self.method)(net, [layer], reshape_transform=checked)
            try:  # `with cam` would swallow every IndexError
                maps = cam(images, [ClassifierOutputTarget(label) for label in classes])
            finally:
                cam.activations_and_grads.release()
        return maps, f"{name}, {size[0]}x{size[1]}"

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.shown:
            return  # no mistakes: the other gallery says so
        split, name = SPLITS.get(self.split, self.split), class_names(trainer)
        classes = [getattr(sample, self.target) for sample in self.shown]
        maps, where = self.relevance(pl_module, torch.stack([s.image for s in self.shown]), classes)
        what = "mistakes" if self.of == "mistakes" else "first images"
        subtitle = f"Evidence for the {self.target}, {what} of the {split} set; truth → prediction"
        figure, axes = cells(len(maps), 2, f"{self.method} at {where}", subtitle, foot=0.55)
        rows = []
        for pair, sample, relevance in zip(axes, self.shown, maps, strict=True):
            image, truth, prediction = rgb(trainer, sample.image), name(sample.truth), name(sample.prediction)
            overlay = (1 - ALPHA) * image + ALPHA * COLOURS(relevance)[..., :3]
            draw_image(pair[0], image)
            draw_image(pair[1], overlay)
            caption(pair[0], truth, prediction, f"{100 * sample.confidence:.0f} % sure")
            rows.append([image, overlay, truth, prediction, sample.confidence])
        width, height = figure.get_size_inches()
        bar = figure.add_axes((0.2 / width, 0.3 / height, 2.5 / width, 0.12 / height))
        figure.colorbar(ScalarMappable(cmap=COLOURS), cax=bar, orientation="horizontal", ticks=[0, 0.5, 1])
        bar.tick_params(labelsize=8, length=2, pad=2)
        figure.text(2.85 / width, 0.3 / height, "relevance, 0 to 1, scaled for each image", size=9, color=GREY)
        columns = ["image", "overlay", "truth", "prediction", "confidence"]
        self.publish(trainer, f"gradcam_{self.split}", figure, (columns, rows))
