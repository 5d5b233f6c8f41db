"""What enters the last layer of a classifier: how well it falls into classes, and how it lies in the plane.

B batch, N samples, F features, K classes.
"""

import json
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer
from sklearn.cluster import KMeans
from sklearn.manifold import TSNE
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from callbacks.figures.callback import FigureCallback
from callbacks.figures.embeddings import draw_embeddings
from callbacks.galleries.base import SPLIT_NAMES
from callbacks.galleries.items import FOLDER, full_names
from datamodules.io import atomic_write

FEWEST = 10  # samples that can be projected


class Embeddings(FigureCallback):
    """Clusters the embeddings of a classifier, and draws them in the plane, to `pictures/embeddings_<split>.png`.

    The embedding of an image is what enters the last layer of the net, averaged over places if there are several, and
    scaled to length 1. k-means finds as many clusters as there are classes, without their labels; logged as
    `<split>/nmi` is the normalized mutual information of clusters and classes, 0 to 1. t-SNE (van der Maaten and Hinton
    2008, "Visualizing Data using t-SNE") draws some of them in the plane. `items/embeddings_<split>.json` has both, and
    how many samples of each class are in each cluster.

    That is in `test` and `validate`, and in `fit` after as many epochs as `every_n_epochs` says, for the first loader
    if validation has several. For a net whose last layer is not found a line says so, and nothing is done.

    Args:
        layer: full name of the last layer in the net; None for the last linear layer or convolution with K outputs.
        points: samples that are drawn, the first ones; clustered are all.
        every_n_epochs: in `fit`; 0 for never.

    Attributes:
        unavailable: why nothing can be done; None if it can.

    Raises:
        ValueError: for fewer than 10 points.

    >>> Embeddings(points=500).split
    'val'
    """

    def __init__(self, layer: str | None = None, points: int = 2000, every_n_epochs: int = 0) -> None:
        if points < FEWEST:
            raise ValueError(f"points is {points}: expected {FEWEST} or more")
        self.layer, self.points, self.every_n_epochs = layer, points, every_n_epochs
        self.split = "val"
        self._hook: RemovableHandle | None = None
        self._latest: Tensor | None = None  # of the batch: its first call, as further views of an image may follow
        self._embeddings: list[Tensor] = []
        self._labels: list[Tensor] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self.unavailable = None
        sources = (pl_module, getattr(trainer, "datamodule", None))
        number = next((n for source in sources if (n := getattr(source, "num_classes", None)) is not None), None)
        net = getattr(pl_module, "net", pl_module)
        self._last = last_layer(net, number, self.layer)
        self.num_classes = number
        if self._last is None or number is None:
            wanted = f"a layer {self.layer!r}" if self.layer else f"a linear layer or convolution with {number} outputs"
            self.unavailable = (
                f"{type(pl_module).__name__} lacks {wanted}, whose inputs are the embeddings: give the name of the "
                "last layer as `layer`, or leave Embeddings out"
            )
            self.say_why()

    def _is_wanted(self, trainer: Trainer) -> bool:
        if self.unavailable or trainer.sanity_checking:
            return False
        every = self.every_n_epochs
        return trainer.state.fn != "fit" or bool(every and (trainer.current_epoch + 1) % every == 0)

    def _start(self, trainer: Trainer, split: str) -> None:
        self._remove()
        self.split, self._latest, self._embeddings, self._labels = split, None, [], []
        if self._is_wanted(trainer):
            assert self._last is not None
            self._hook = self._last.register_forward_pre_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: tuple) -> None:
        if self._latest is None:
            self._latest = inputs[0].detach()

    def _remove(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loaders = trainer.val_dataloaders
        self._start(trainer, next(iter(loaders)) if isinstance(loaders, dict) else "val")

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start(trainer, "test")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        found, self._latest = self._latest, None
        if dataloader_idx or found is None or self._hook is None:
            return
        label = batch[1]
        self._embeddings.append(pooled(found).to("cpu", copy=True))
        self._labels.append((label if label.ndim == 1 else label.argmax(1)).to("cpu", copy=True))

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._remove()
        if not self._embeddings:
            return
        parts = [(torch.cat(self._embeddings), torch.cat(self._labels))]
        if trainer.world_size > 1:
            parts *= trainer.world_size
            torch.distributed.all_gather_object(parts, parts[0])
        embeddings, labels = (torch.cat(each).numpy() for each in zip(*parts, strict=True))
        self._embeddings, self._labels = [], []
        # On every rank: all have the same samples, and draw the same random numbers.
        clusters = cluster(embeddings, int(self.num_classes or 1))
        nmi = float(normalized_mutual_info_score(labels, clusters))
        pl_module.log(f"{self.split}/nmi", nmi, add_dataloader_idx=False)
        if trainer.is_global_zero:
            self._publish(trainer, embeddings, labels, clusters, nmi)

    on_test_epoch_end = on_validation_epoch_end

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._remove()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._remove()

    def _publish(
        self, trainer: Trainer, embeddings: np.ndarray, labels: np.ndarray, clusters: np.ndarray, nmi: float
    ) -> None:
        key, number = f"embeddings_{self.split}", int(self.num_classes or 1)
        table = np.zeros((number, number), dtype=int)  # classes by clusters
        np.add.at(table, (labels, clusters), 1)
        wrong = table.argmax(0)[clusters] != labels
        names = [full_names(trainer)(label) for label in range(number)]
        content: dict[str, Any] = {"kind": "embeddings", "split": self.split, "nmi": nmi, "classes": names}
        content |= {"clusters": table.tolist(), "right": float(1 - wrong.mean())}
        shown = slice(0, self.points)
        places = project(embeddings[shown])
        if places is not None:
            content["places"] = [[*map(float, place), int(label)] for place, label in zip(places, labels, strict=False)]
            count = f"{len(labels):,}".replace(",", "\u202f")
            title = (
                f"Embeddings of the {SPLIT_NAMES.get(self.split, self.split)} set, {embeddings.shape[1]} numbers each"
            )
            subtitle = f"{count} images in {number} clusters: NMI {nmi:.4f}; t-SNE of {len(places)}, colors: classes"
            figure = draw_embeddings(places, labels[shown], wrong[shown], names, title, subtitle)
            self.publish(trainer, key, figure)
        with atomic_write(self.folder.parent / FOLDER / f"{key}.json") as temporary:
            temporary.write_text(json.dumps(content), encoding="utf-8")


def last_layer(net: nn.Module, outputs: int | None, name: str | None = None) -> nn.Module | None:
    """The named module of a net; without a name the last linear layer or convolution with so many outputs, in `head`
    if the net has one. None if there is no such module.

    >>> last_layer(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), 3)
    Linear(in_features=8, out_features=3, bias=True)
    """
    if name is not None:
        return dict(net.named_modules()).get(name)
    head = getattr(net, "head", None)
    for part in (head, net):
        modules = part.modules() if isinstance(part, nn.Module) else ()
        found = [m for m in modules if outputs in (getattr(m, "out_features", None), getattr(m, "out_channels", None))]
        if outputs is not None and found:
            return found[-1]
    return None


def pooled(features: Tensor) -> Tensor:
    """What enters the last layer -> (B, F) float32 of length 1: maps (B, F, H, W) are averaged over H and W."""
    flat = features.float().flatten(2).mean(2) if features.ndim == 4 else features.float().flatten(1)
    return F.normalize(flat, dim=1)


def cluster(embeddings: np.ndarray, number: int) -> np.ndarray:
    """(N, F) -> (N,), the cluster of each by k-means, the best of ten starts; the same for the same embeddings."""
    number = min(number, len(np.unique(embeddings, axis=0)))
    return KMeans(number, n_init=10, random_state=0).fit_predict(embeddings)


def project(embeddings: np.ndarray) -> np.ndarray | None:
    """(N, F) -> (N, 2) by t-SNE, the same for the same embeddings; None for fewer samples than can be projected."""
    if len(embeddings) < FEWEST:
        return None
    perplexity = min(30.0, (len(embeddings) - 1) / 3)
    start = "pca" if min(embeddings.shape) > 1 and embeddings.std(0).any() else "random"
    return TSNE(2, perplexity=perplexity, init=start, random_state=0).fit_transform(embeddings)
