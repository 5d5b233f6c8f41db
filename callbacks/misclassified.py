"""The gallery of what a classifier gets wrong."""

from lightning import LightningModule, Trainer

from callbacks.pictures import caption, cells, class_names, draw_image, rgb
from callbacks.samples import SPLITS, SampleGallery


class MisclassifiedGallery(SampleGallery):
    """Draws mistakes, each with truth, prediction, confidence and loss, to `pictures/misclassified_<split>.png`.

    Args:
        n: how many.
        order: "worst" or "spread", see `SampleGallery`.
        every_n_epochs: see `SampleGallery`.

    >>> MisclassifiedGallery(10, order="spread").shown
    []
    """

    orders = ("worst", "spread")

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        split, name = SPLITS.get(self.split, self.split), class_names(trainer)
        wrong = f"{self.mistakes:,} of {self.seen:,} images wrong".replace(",", "\u202f")
        title = {
            "worst": f"The worst mistakes on the {split} set",
            "spread": f"Mistakes of each class on the {split} set",
        }
        subtitle = f"{wrong}, accuracy {100 - 100 * self.mistakes / self.seen:.2f} %; truth → prediction"
        if not self.shown:
            title, subtitle = {self.order: f"No mistakes among {self.seen} {split} images"}, "Nothing to show."
        figure, axes = cells(len(self.shown), 1, title[self.order], subtitle)
        rows = []
        for (panel,), sample in zip(axes, self.shown, strict=True):
            image, truth, prediction = rgb(trainer, sample.image), name(sample.truth), name(sample.prediction)
            draw_image(panel, image)
            caption(panel, truth, prediction, f"{100 * sample.confidence:.0f} % sure, loss {sample.loss:.2f}")
            rows.append([image, truth, prediction, sample.confidence, sample.loss])
        columns = ["image", "truth", "prediction", "confidence", "loss"]
        self.publish(trainer, f"misclassified_{self.split}", figure, (columns, rows))
