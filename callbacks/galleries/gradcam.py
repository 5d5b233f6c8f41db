"""The gallery of relevance maps: where a classifier looked."""

import matplotlib
import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from matplotlib.cm import ScalarMappable
from torch import Tensor, nn

from callbacks.figures.callback import class_names, rgb
from callbacks.figures.grids import caption, cells, draw_image
from callbacks.figures.style import GRAY, add_axes
from callbacks.galleries.classified import ClassifierGallery, as_items
from callbacks.galleries.items import Choice, Entry, data_uri
from callbacks.galleries.misclassified import MisclassifiedGallery
from callbacks.galleries.relevance import METHODS, Relevance, relevance, road, usable_layer

COLORMAP = matplotlib.colormaps["inferno"]  # rises evenly in lightness: right for any color vision, and in print
ALPHA = 0.6  # of the map over the image
CHUNK = 16  # images whose maps are computed at a time, of those that are not drawn
SLOW = ("AblationCAM", "ScoreCAM")  # need a pass for each channel of the layer: only for what is drawn


class GradCAMGallery(ClassifierGallery):
    """Draws each image next to its relevance map, to `pictures/gradcam_<split>.png`.

    Those of further mistakes and of right ones go to `items/gradcam_<split>.json`, for `zoo report`.

    The net is `pl_module.net`, the layer `pl_module.cam_target`, and `pl_module.cam_reshape`, if it is not None, turns
    the layer's output into maps (B, D, H, W). Where the images are so small that these maps would say nothing, those of
    the stage before count. All of it is tried on one blank image before training starts; if that
    fails, a line says why, and the training goes on without this gallery.

    Args:
        n: images to draw.
        method: class of the package grad-cam, one of `METHODS`.
        of: "mistakes" (those of the `MisclassifiedGallery` among the callbacks, without one the worst; where there are
            none, the right ones with the largest loss) or "first" (right or wrong, in the order of the data).
        target: the class whose evidence is shown, "prediction" or "truth".
        every_n_epochs: see `Gallery`.
        road: whether to tell how faithful the maps are, see `callbacks.galleries.relevance.road`; at 32 px that takes a
            fifth of a second for each image.

    Attributes:
        layer: from whose output the maps are computed; None for the net's own choice.
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
        road: bool = False,
    ) -> None:
        for value, known in ((method, METHODS), (of, ("mistakes", "first")), (target, ("prediction", "truth"))):
            if value not in known:
                raise ValueError(f"{value!r} is unknown to GradCAMGallery: expected one of {', '.join(known)}")
        super().__init__(n, "first" if of == "first" else "worst", every_n_epochs)
        self.method, self.of, self.target, self.road = method, of, target, road
        self.layer: nn.Module | None = None

    def further_choices(self) -> dict[str, Choice]:
        # The least sure of the right ones are shown where there are no mistakes.
        return super().further_choices() | {"least sure": Choice(self.n, "worst", lambda entry: not entry.wrong)}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._tried, self.layer, self.unavailable = False, None, None

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
                self.layer = usable_layer(pl_module, image[None], self.method)
            except Exception as error:  # of any kind: a gallery does not stop a training
                self.unavailable = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
                self.say_why()

    def _collect(self, trainer: Trainer, outputs: object, batch: tuple) -> None:
        self._try(trainer.lightning_module, batch[0][0])  # for data that do not know their `image_shape`
        if not self.unavailable:
            super()._collect(trainer, outputs, batch)

    def gather(self, trainer: Trainer) -> None:
        callbacks: list[Callback] = getattr(trainer, "callbacks", [])
        others = [callback for callback in callbacks if isinstance(callback, MisclassifiedGallery)]
        super().gather(trainer)
        if self.of == "mistakes" and others:
            others[0].gather(trainer)
            self.shown, self.seen, self.mistakes = others[0].shown[: self.n], others[0].seen, others[0].mistakes
        if not self.shown:
            self.shown = self.choices["least sure"].held

    def maps_of(self, pl_module: LightningModule, entries: list[Entry]) -> Relevance:
        """The relevance maps of some entries."""
        classes = [getattr(entry.item, self.target) for entry in entries]
        images = torch.stack([entry.item.image for entry in entries])
        return relevance(pl_module, images, classes, self.method, self.layer)

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        shown = {entry.index for entry in self.shown}
        others = [entry for entry in self.recorded() if entry.index not in shown and self.method not in SLOW]
        heats: list[np.ndarray] = []
        for start in range(0, len(others), CHUNK):
            heats += list(self.maps_of(pl_module, others[start : start + CHUNK]).maps)
        found = self.maps_of(pl_module, self.shown)
        self._publish(trainer, pl_module, found)
        recorded, heats = [*self.shown, *others], [*found.maps, *heats]
        items = as_items(trainer, recorded, self.split)
        for item, entry, heat in zip(items, recorded, heats, strict=True):
            item["overlay"] = data_uri(overlay(rgb(trainer, entry.item.image), heat))
            item["evidence"] = bool(heat.any())
        about = {"method": self.method, "layer": found.layer, "size": found.size, "target": self.target}
        self.record(f"gradcam_{self.split}", "classified", items, **about)

    def _publish(self, trainer: Trainer, pl_module: LightningModule, found: Relevance) -> None:
        name, items = class_names(trainer), [entry.item for entry in self.shown]
        maps, layer, size = found
        what, legend = "first images" if self.of == "first" else "mistakes", "; truth → prediction"
        if self.of == "mistakes" and not self.mistakes:
            what, legend = "no mistakes: the least sure", ""
        subtitle = f"Evidence for the {self.target}, {what} of the {self.split_name} set{legend}"
        title = f"Where the evidence lies: {self.method} at {layer}, {size[0]}x{size[1]}"
        figure, axes = cells(len(maps), 2, title, subtitle, foot=0.55)
        rows = []
        for pair, item, heat in zip(axes, items, maps, strict=True):
            image, truth, prediction = rgb(trainer, item.image), name(item.truth), name(item.prediction)
            shown = overlay(image, heat)
            draw_image(pair[0], image)
            draw_image(pair[1], shown)
            if not heat.any():  # at layers before the last, Grad-CAM may find nothing that speaks for a class
                pair[1].text(0.5, 0.5, "none found", size=9, color="white", ha="center", transform=pair[1].transAxes)
            caption(pair[0], truth, prediction, f"{100 * item.confidence:.0f} % sure", item.truth == item.prediction)
            rows.append([image, shown, truth, prediction, item.confidence])
        columns = ["image", "overlay", "truth", "prediction", "confidence"]
        bar = add_axes(figure, 0.2, 0.3, 2.5, 0.12)
        figure.colorbar(ScalarMappable(cmap=COLORMAP), cax=bar, orientation="horizontal", ticks=[0, 0.5, 1])
        bar.tick_params(labelsize=8, length=2, pad=2)
        notes = ["relevance, 0 to 1, scaled for each image"]
        if self.road:
            images, classes = torch.stack([item.image for item in items]), [getattr(i, self.target) for i in items]
            scores = road(pl_module, images, classes, maps).tolist()
            notes.append(f"ROAD {sum(scores) / len(scores):.3f} on average; random maps: 0")
            columns, rows = [*columns, "ROAD"], [[*row, score] for row, score in zip(rows, scores, strict=True)]
        width, height = figure.get_size_inches()
        figure.text(3.0 / width, 0.43 / height, "\n".join(notes), size=9, color=GRAY, va="top", linespacing=1.4)
        self.publish(trainer, f"gradcam_{self.split}", figure, (columns, rows))


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) in 0..1 with its relevance map (H, W) over it."""
    return (1 - ALPHA) * image + ALPHA * COLORMAP(heat)[..., :3]
