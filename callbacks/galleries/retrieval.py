"""The gallery of images found by sentences. B batch, C channels, H height, W width, D width of the embeddings."""

from collections.abc import Iterable, Iterator
from itertools import chain, count, groupby, islice
from typing import Any, NamedTuple

import torch
from lightning import LightningModule, Trainer
from torch import Tensor

from callbacks.figures.callback import class_names, rgb
from callbacks.figures.retrieval import contact_sheet, similarity_matrix
from callbacks.galleries.base import Gallery
from callbacks.galleries.items import Entry, own_memory


class Query(NamedTuple):
    """A sentence to find images for, and the image that it came with.

    sentence: as text.
    label: of the pair.
    text_embedding, image_embedding: (D,), of the sentence and of its image.
    image: (C, H, W), normalized.
    """

    sentence: str
    label: int
    text_embedding: Tensor
    image_embedding: Tensor
    image: Tensor


class Hit(NamedTuple):
    """An image that was found.

    query: number of the sentence.
    image: (C, H, W), normalized.
    cosine: of the angle between its embedding and the sentence's.
    right: whether the sentence is true of it, by the labels.
    """

    query: int
    image: Tensor
    cosine: float
    right: bool


class RetrievalGallery(Gallery):
    """Draws the images that fit some sentences best, with their cosines, to `pictures/retrieval_<split>.png`.

    The sentences are the first ones of the evaluated data with different labels; they are compared with all images of
    that data. After the best images comes the best wrong one. `pictures/similarity_<split>.png` has the cosine of each
    of the sentences with each of the images that they came with.

    When it draws: see `Gallery`. Steps must return `image_embedding` and `text_embedding`, each (B, D) with rows of
    length 1; batches have `image`, `input_ids` and `label`, and the datamodule may turn tokens into text by
    `sentences`.

    Args:
        n: sentences.
        k: images for each.
        every_n_epochs: see `Gallery`.

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

    def _best(self, entries: Iterable[Entry]) -> list[Entry]:
        """For each query the `k` best and the best wrong one after them."""
        kept = []
        ranked = sorted(entries, key=lambda e: (e.group, e.rank_key, e.index))
        for _, group in groupby(ranked, lambda e: e.group):
            best = list(group)
            kept += [*best[: self.k], *[entry for entry in best[self.k :] if entry.wrong][:1]]
        return kept

    def entries(self, outputs: Any, batch: Any, indices: Iterator[int]) -> list[Entry]:
        """Every image of the batch for every query, in groups by query, ranked by minus the cosine."""
        images, labels = outputs["image_embedding"].detach().float().cpu(), batch.label.tolist()
        places = list(islice(indices, len(labels)))
        return [
            Entry(Hit(number, image, cosine, label == query.label), -cosine, place, label != query.label, number)
            for number, query in enumerate(self.queries)
            for image, cosine, label, place in zip(
                batch.image, (images @ query.text_embedding).tolist(), labels, places, strict=True
            )
        ]

    def _collect(self, trainer: Trainer, outputs: Any, batch: Any) -> None:
        what = "(B, D) of length 1"
        images, texts = (
            self.output(outputs, name, what).detach().float().cpu() for name in ("image_embedding", "text_embedding")
        )
        if trainer.sanity_checking:
            return
        if not self.queries:  # at the first batch, on all ranks, which take those of rank zero
            self.queries = trainer.strategy.broadcast(self._choose(trainer, batch, images, texts))
        first = self.seen * trainer.world_size
        new = self.entries(outputs, batch, count(first + trainer.global_rank, trainer.world_size))
        self._held = [own_memory(e) if e.index >= first else e for e in self._best(chain(self._held, new))]
        self.seen, self._due = self.seen + len(batch.label), True

    def _choose(self, trainer: Trainer, batch: Any, images: Tensor, texts: Tensor) -> list[Query]:
        """The first `n` pairs of a batch with different labels."""
        labels = batch.label.tolist()
        first_rows = {label: i for i, label in reversed(list(enumerate(labels)))}
        rows = sorted(first_rows.values())[: self.n]
        ids, read = batch.input_ids[rows].cpu(), getattr(getattr(trainer, "datamodule", None), "sentences", None)
        sentences = read(ids) if read else [" ".join(map(str, row)) for row in ids.tolist()]
        return [
            Query(sentence, labels[i], texts[i], images[i], batch.image[i].detach().cpu())
            for sentence, i in zip(sentences, rows, strict=True)
        ]

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        split, name = self.split_name, class_names(trainer)
        rows: list[tuple[str, list]] = [(query.sentence, []) for query in self.queries]
        table = []
        for hit in (entry.item for entry in self.shown):
            query, image = self.queries[hit.query], rgb(trainer, hit.image)
            rows[hit.query][1].append((image, hit.cosine, hit.right))
            table.append([query.sentence, name(query.label), image, hit.cosine, hit.right])
        best = [cells[0][2] for _, cells in rows]
        title = f"Images found by sentences: {split} set"
        seen = f"{self.seen:,}".replace(",", "\u202f")
        subtitle = (
            f"The best of {seen} images, first place right for {sum(best)} of {len(best)} sentences; "
            "after the gap the best wrong one; cosines"
        )
        columns = ["sentence", "class", "image", "cosine", "right"]
        self.publish(trainer, f"retrieval_{self.split}", contact_sheet(rows, self.k, title, subtitle), (columns, table))
        sentences = [query.sentence for query in self.queries]
        images = [rgb(trainer, query.image) for query in self.queries]
        text_embeddings = torch.stack([query.text_embedding for query in self.queries])
        cosines = text_embeddings @ torch.stack([query.image_embedding for query in self.queries]).T
        figure = similarity_matrix(sentences, images, cosines.numpy(), split)
        self.publish(trainer, f"similarity_{self.split}", figure)
