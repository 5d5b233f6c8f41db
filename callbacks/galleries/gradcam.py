"""Where a classifier looked: class activation maps. B batch, C channels, H height, W width, K classes.

Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", and its
relatives, as implemented in the package grad-cam.
"""

import matplotlib
import numpy as np
import pytorch_grad_cam
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from matplotlib.cm import ScalarMappable
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from callbacks.figures.callback import class_names, rgb, untouched
from callbacks.figures.grids import caption, cells, draw_image
from callbacks.figures.style import GRAY, add_axes
from callbacks.galleries.classified import ClassifierGallery
from callbacks.galleries.misclassified import MisclassifiedGallery

METHODS = tuple(
    name
    for name, kind in vars(pytorch_grad_cam).items()
    if isinstance(kind, type) and issubclass(kind, BaseCAM) and name != "FullGrad"  # which takes no target layer
)
MIN_MAP_SIZE = 5  # cells along a side: a smaller map, stretched over the image, says nothing about where
COLORMAP = matplotlib.colormaps["inferno"]  # rises evenly in lightness: right for any color vision, and in print
ALPHA = 0.6  # of the map over the image


class GradCAMGallery(ClassifierGallery):
    """Draws each image next to its relevance map, to `pictures/gradcam_<split>.png`.

    The net is `pl_module.net`, the layer `pl_module.cam_target`, and `pl_module.cam_reshape`, if it is not None, turns
    the layer's output into maps (B, D, H, W). All of it is tried on one blank image before training starts; if that
    fails, a warning says why, and the training goes on without this gallery.

    Args:
        n: images to draw.
        method: class of the package grad-cam, one of `METHODS`.
        of: "mistakes" (those of the `MisclassifiedGallery` among the callbacks, without one the worst) or "first"
            (right or wrong, in the order of the data).
        target: the class whose evidence is shown, "prediction" or "truth".
        every_n_epochs: see `Gallery`.

    Attributes:
        unavailable: why nothing can be drawn; None if it can.

    Raises:
        ValueError: for an unknown argument.

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
        self.unavailable: str | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._tried, self.unavailable = False, None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        shape = getattr(getattr(trainer, "datamodule", None), "image_shape", None)
        if shape is not None:
            self._try(pl_module, torch.zeros(shape))

    on_test_start = on_validation_start = on_fit_start

    def _try(self, pl_module: LightningModule, image: Tensor) -> None:
        """Finds out now, rather than after hours of training, whether there is anything to draw."""
        if not self._tried:
            self._tried = True
            try:
                self.relevance(pl_module, image[None], [0])
            except Exception as error:  # of any kind: a gallery does not stop a training
                self.unavailable = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
                rank_zero_warn(f"GradCAMGallery draws nothing: {self.unavailable}")

    def _collect(self, trainer: Trainer, outputs: object, batch: tuple) -> None:
        self._try(trainer.lightning_module, batch[0][0])  # for data that do not know their `image_shape`
        if not self.unavailable:
            super()._collect(trainer, outputs, batch)

    def gather(self, trainer: Trainer) -> None:
        callbacks: list[Callback] = getattr(trainer, "callbacks", [])
        others = [callback for callback in callbacks if isinstance(callback, MisclassifiedGallery)]
        if self.of == "mistakes" and others:
            others[0].gather(trainer)
            self.shown, self.seen, self.mistakes = others[0].shown[: self.n], others[0].seen, others[0].mistakes
        else:
            super().gather(trainer)

    def relevance(self, pl_module: LightningModule, images: Tensor, classes: list[int]) -> tuple[np.ndarray, str]:
        """Relevance maps of some images.

        Args:
            pl_module: with `net` and `cam_target`.
            images: (B, C, H, W), normalized.
            classes: for each image the class whose evidence is shown.

        Returns:
            Maps (B, H, W) in 0..1, and "layer, HxW".

        Raises:
            ValueError: if the module does not say which layer to use, or its maps are smaller than 5x5.
        """
        net, layer = getattr(pl_module, "net", None), getattr(pl_module, "cam_target", None)
        if not isinstance(net, nn.Module) or layer is None:
            raise ValueError(
                f"{type(pl_module).__name__} does not say which layer to use: expected an attribute or property "
                "`cam_target`, a module inside `self.net`; add it, or leave out GradCAMGallery"
            )
        name = next((name for name, module in net.named_modules() if module is layer), "")
        reshape = getattr(pl_module, "cam_reshape", None) or (lambda output: output)
        size: list[int] = []

        def checked(output: Tensor) -> Tensor:
            maps = reshape(output)
            size[:] = maps.shape[2:]
            if maps.ndim != 4 or min(size) < MIN_MAP_SIZE:
                raise ValueError(
                    f"{name} of {type(pl_module).__name__} gives maps of {tuple(maps.shape)}: expected (B, D, H, W) "
                    f"with H and W of {MIN_MAP_SIZE} or more; choose an earlier layer as `cam_target`"
                    + (" or give a `cam_reshape`" if maps.ndim != 4 else "")
                )
            return maps.float().clone()  # NumPy has no bfloat16, and later layers may write in place

        weight = next(net.parameters())
        # Evaluation runs in inference mode, without gradients; tensors made in it have to be cloned outside it.
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
            return  # no mistakes, which the other gallery shows
        name, items = class_names(trainer), [entry.item for entry in self.shown]
        classes = [getattr(item, self.target) for item in items]
        maps, where = self.relevance(pl_module, torch.stack([item.image for item in items]), classes)
        what = "mistakes" if self.of == "mistakes" else "first images"
        subtitle = f"Evidence for the {self.target}, {what} of the {self.split_name} set; truth → prediction"
        figure, axes = cells(len(maps), 2, f"{self.method} at {where}", subtitle, foot=0.55)
        rows = []
        for pair, item, relevance in zip(axes, items, maps, strict=True):
            image, truth, prediction = rgb(trainer, item.image), name(item.truth), name(item.prediction)
            overlay = (1 - ALPHA) * image + ALPHA * COLORMAP(relevance)[..., :3]
            draw_image(pair[0], image)
            draw_image(pair[1], overlay)
            caption(pair[0], truth, prediction, f"{100 * item.confidence:.0f} % sure")
            rows.append([image, overlay, truth, prediction, item.confidence])
        bar = add_axes(figure, 0.2, 0.3, 2.5, 0.12)
        figure.colorbar(ScalarMappable(cmap=COLORMAP), cax=bar, orientation="horizontal", ticks=[0, 0.5, 1])
        bar.tick_params(labelsize=8, length=2, pad=2)
        width, height = figure.get_size_inches()
        figure.text(2.85 / width, 0.3 / height, "relevance, 0 to 1, scaled for each image", size=9, color=GRAY)
        columns = ["image", "overlay", "truth", "prediction", "confidence"]
        self.publish(trainer, f"gradcam_{self.split}", figure, (columns, rows))
