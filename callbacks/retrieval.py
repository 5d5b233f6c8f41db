"""Finding pictures by sentences, in pictures. B batch, C channels, H height, W width, D width of the embeddings."""

from itertools import chain, groupby
from typing import Any, NamedTuple

import numpy as np
from lightning import LightningModule, Trainer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from callbacks.pictures import BLUE, GREY, VERMILION, class_names, draw_image, rgb
from callbacks.samples import SPLITS, SampleGallery

MARKS = {True: ("✓ ", BLUE, "-"), False: ("✗ ", VERMILION, (0, (2, 1.5))), None: ("", GREY, "-")}


class Query(NamedTuple):
    """A sentence to find pictures for, and the picture that it came with.

    sentence: as text.
    label: of the pair.
    text, own: embeddings (D,) of sentence and picture.
    image: (C, H, W), normalised.
    """

    sentence: str
    label: int
    text: Tensor
    own: Tensor
    image: Tensor


class Hit(NamedTuple):
    """A picture that was found.

    query: number of the sentence.
    image: (C, H, W), normalised, on the CPU.
    cosine: with the sentence.
    right: whether the sentence is true of it, as far as labels tell.
    index: place in the evaluated data set.
    """

    query: int
    image: Tensor
    cosine: float
    right: bool
    index: int


class RetrievalGallery(SampleGallery):
    """Draws the pictures that fit some sentences best, with their cosines, to `pictures/retrieval_<split>.png`.

    The sentences are the first ones of the evaluated data with different labels, the pictures are all of that data;
    behind the best ones stands the nearest picture that is wrong. `pictures/similarity_<split>.png` has the cosine of
    each of the sentences with each of their pictures.

    When it draws: see `SampleGallery`. Steps must return `image_embedding` and `text_embedding`, each (B, D) of length
    1; batches have `image`, `input_ids`, `label`, and the datamodule may turn tokens into text by `sentences`.

    Args:
        n: sentences.
        k: pictures for each.
        every_n_epochs: see `SampleGallery`.

    Attributes:
        queries: the `Query`s.
        shown: the `Hit`s, by query, best first.

    Raises:
        ValueError: if n or k is below 1, or steps return no embeddings.
    """

    def __init__(self, n: int = 6, k: int = 6, every_n_epochs: int = 0) -> None:
        if k < 1:
            raise ValueError(f"k is {k}: expected 1 or more")
        self.k = k
        super().__init__(n, "first", every_n_epochs)

    def _start(self, split: str) -> None:
        super()._start(split)
        self.queries: list[Query] = []

    def _best(self, hits: Any) -> list[Hit]:
        """For each query the `k` best and the best wrong one behind them."""
        kept = []
        for _, group in groupby(sorted(hits, key=lambda h: (h.query, -h.cosine, h.index)), lambda h: h.query):
            ranked = list(group)
            kept += [*ranked[: self.k], *[hit for hit in ranked[self.k :] if not hit.right][:1]]
        return kept

    def _collect(self, trainer: Trainer, outputs: Any, batch: Any) -> None:
        if not isinstance(outputs, dict) or not {"image_embedding", "text_embedding"} <= outputs.keys():
            raise ValueError(
                f"RetrievalGallery found no embeddings in what the {self.split} step returns: "
                'expected a dict with "image_embedding" and "text_embedding" (B, D) beside "loss"; return that'
            )
        if trainer.sanity_checking:
            return
        images, texts = (outputs[name].detach().float().cpu() for name in ("image_embedding", "text_embedding"))
        labels = batch.label.tolist()
        if not self.queries:  # at the first batch on all ranks; those of rank zero count
            self.queries = trainer.strategy.broadcast(self._choose(trainer, batch, images, texts))
        new, first = [], self.seen * trainer.world_size + trainer.global_rank
        for number, query in enumerate(self.queries):
            for i, cosine in enumerate((images @ query.text).tolist()):
                right = labels[i] == query.label
                new.append(Hit(number, batch.image[i], cosine, right, first + i * trainer.world_size))
        held = {(hit.query, hit.index) for hit in self._held}
        self._held = [  # those that stay get memory of their own, or they would keep their whole batch alive
            hit if (hit.query, hit.index) in held else hit._replace(image=hit.image.detach().to("cpu", copy=True))
            for hit in self._best(chain(self._held, new))
        ]
        self.seen, self._due = self.seen + len(labels), True

    def _choose(self, trainer: Trainer, batch: Any, images: Tensor, texts: Tensor) -> list[Query]:
        labels = batch.label.tolist()
        rows = list({label: i for i, label in reversed(list(enumerate(labels)))}.values())[::-1]
        rows = sorted(rows)[: self.n]
        read = getattr(trainer.datamodule, "sentences", lambda ids: [" ".join(map(str, row)) for row in ids.tolist()])
        sentences = read(batch.input_ids[rows].cpu())
        return [
            Query(sentence, labels[i], texts[i], images[i], batch.image[i].detach().cpu())
            for sentence, i in zip(sentences, rows, strict=True)
        ]

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        split, name = SPLITS.get(self.split, self.split), class_names(trainer)
        rows = [(query.sentence, []) for query in self.queries]
        table = []
        for hit in self.shown:
            query, image = self.queries[hit.query], rgb(trainer, hit.image)
            rows[hit.query][1].append((image, hit.cosine, hit.right))
            table.append([query.sentence, name(query.label), image, hit.cosine, hit.right])
        best = [cells[0][2] for _, cells in rows]
        title = f"Find the picture for this sentence: {split} set"
        seen = f"{self.seen:,}".replace(",", "\u202f")
        subtitle = (
            f"The best of {seen} pictures, first place right for {sum(best)} of {len(best)} sentences; "
            "behind the gap the nearest wrong one; cosines"
        )
        columns = ["sentence", "class", "image", "cosine", "right"]
        self.publish(trainer, f"retrieval_{self.split}", contact_sheet(rows, self.k, title, subtitle), (columns, table))
        sentences, pictures = zip(*((query.sentence, rgb(trainer, query.image)) for query in self.queries), strict=True)
        cosines = np.array([[float(words.text @ picture.own) for picture in self.queries] for words in self.queries])
        self.publish(trainer, f"similarity_{self.split}", similarity_matrix(sentences, pictures, cosines, split))


def contact_sheet(rows: list[tuple[str, list]], k: int, title: str, subtitle: str) -> Figure:
    """Sentences, each over a row of the pictures found for it.

    Args:
        rows: sentence and [(image (H, W, 3) in 0..1, cosine, right or wrong or None where nobody knows)], best first.
        k: those behind the first k stand apart.
        title, subtitle: above all.
    """
    cell, gap, head, label, foot = 1.05, 0.1, 0.72, 0.3, 0.26
    most = max(len(cells) for _, cells in rows)
    width = max(gap + most * (cell + gap) + (0.3 if most > k else 0.0), 6.8)
    height = head + len(rows) * (label + cell + foot)
    figure = Figure((width, height), facecolor="white")
    figure.text(gap / width, 1 - 0.12 / height, title, size=13, weight="bold", va="top")
    figure.text(gap / width, 1 - 0.38 / height, subtitle, size=9, color=GREY, va="top")
    for number, (sentence, cells) in enumerate(rows):
        top = height - head - number * (label + cell + foot)
        figure.text(gap / width, (top - label + 0.08) / height, f"“{sentence}”", size=10.5, va="bottom")
        for i, (image, cosine, right) in enumerate(cells):
            x, y = gap + i * (cell + gap) + (0.3 if i >= k else 0.0), top - label - cell
            axes = figure.add_axes((x / width, y / height, cell / width, cell / height))
            _framed(axes, image, *MARKS[right][1:])
            text, colour = f"{MARKS[right][0]}{_signed(cosine)}", MARKS[right][1]
            figure.text(x / width, (y - 0.05) / height, text, size=9, color=colour, va="top")
    return figure


def _framed(axes: Axes, image: np.ndarray, colour: str, style: Any) -> None:
    """The picture, whatever its shape, in a square frame; dashes say wrong to those who see no colours."""
    axes.imshow(image, interpolation="nearest")
    axes.set_axis_off()
    axes.add_patch(
        Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, ec=colour, ls=style, lw=2, clip_on=False)
    )


def similarity_matrix(sentences: list[str], pictures: list[np.ndarray], cosines: np.ndarray, split: str) -> Figure:
    """Cosines (N, N) of sentences (rows) with pictures (columns); those that belong together stand on the diagonal."""
    n, cell, margin, head, gap = len(pictures), 0.72, 0.1, 0.72, 0.08
    words = max(map(len, sentences)) * 0.075 + 0.15  # inches
    left = margin + words
    width, height = max(left + n * cell + margin, 6.0), head + (n + 1) * cell + gap
    figure = Figure((width, height), facecolor="white")
    figure.text(
        margin / width, 1 - 0.12 / height, f"Sentences and pictures: {split} set", size=13, weight="bold", va="top"
    )
    note = "Cosines; framed: sentence and picture that belong together"
    figure.text(margin / width, 1 - 0.38 / height, note, size=9, color=GREY, va="top")
    axes = figure.add_axes((left / width, gap / height, n * cell / width, n * cell / height))
    axes.imshow(cosines, cmap="cividis", vmin=-1, vmax=1)
    for i, (sentence, picture) in enumerate(zip(sentences, pictures, strict=True)):
        x, y = left + (i + 0.05) * cell, gap + (n + 0.05) * cell
        above = figure.add_axes((x / width, y / height, 0.9 * cell / width, 0.9 * cell / height))
        draw_image(above, picture)
        above.set_anchor("S")
        axes.text(-0.6, i, sentence, ha="right", va="center", size=9.5)
        axes.add_patch(Rectangle((i - 0.46, i - 0.46), 0.92, 0.92, fill=False, ec="white", lw=2))
        for j, cosine in enumerate(cosines[i]):
            axes.text(
                j, i, _signed(cosine), ha="center", va="center", size=9, color="black" if cosine > 0.1 else "white"
            )
    axes.set_axis_off()
    return figure


def _signed(cosine: float) -> str:
    return f"{round(cosine, 2) + 0.0:.2f}".replace("-", "\u2212")
