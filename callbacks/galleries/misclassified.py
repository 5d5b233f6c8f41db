"""The gallery of a classifier's mistakes."""

from lightning import LightningModule, Trainer

from callbacks.figures.callback import class_names, rgb
from callbacks.figures.grids import caption, cells, draw_image
from callbacks.galleries.classified import ClassifierGallery, as_items


class MisclassifiedGallery(ClassifierGallery):
    """Draws mistakes, each with truth, prediction, confidence and loss, to `pictures/misclassified_<split>.png`.

    Further mistakes and right ones go to `items/misclassified_<split>.json`, for `zoo report`.

    Args:
        n: mistakes to draw.
        order: "worst" or "spread", see `Gallery`.
        every_n_epochs: see `Gallery`.

    >>> MisclassifiedGallery(10, order="spread").shown
    []
    """

    orders = ("worst", "spread")

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        split, name = self.split_name, class_names(trainer)
        wrong = f"{self.mistakes:,} of {self.seen:,} images wrong".replace(",", "\u202f")
        title = {
            "worst": f"The worst mistakes on the {split} set",
            "spread": f"Mistakes of each class on the {split} set",
        }[self.order]
        subtitle = f"{wrong}, accuracy {100 - 100 * self.mistakes / self.seen:.2f} %; truth → prediction"
        if not self.shown:
            title, subtitle = f"No mistakes among {self.seen} {split} images", "Nothing to show."
        figure, axes = cells(len(self.shown), 1, title, subtitle)
        rows = []
        for (panel,), entry in zip(axes, self.shown, strict=True):
            item = entry.item
            image, truth, prediction = rgb(trainer, item.image), name(item.truth), name(item.prediction)
            draw_image(panel, image)
            caption(panel, truth, prediction, f"{100 * item.confidence:.0f} % sure, loss {item.loss:.2f}")
            rows.append([image, truth, prediction, item.confidence, item.loss])
        columns = ["image", "truth", "prediction", "confidence", "loss"]
        self.publish(trainer, f"misclassified_{self.split}", figure, (columns, rows))
        self.record(f"misclassified_{self.split}", "classified", as_items(trainer, self.recorded(), self.split))
