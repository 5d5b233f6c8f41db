"""What enters the last layer of a classifier falls into classes, and how training brings that about.

    python -m experiments.studies.embeddings [FOLDER]

writes embeddings.png and embeddings.csv. A small convolutional net learns scikit-learn's digits. Its embeddings of the
test images, what enters its last layer, are clustered by k-means into ten clusters without their labels, and drawn in
the plane by t-SNE: before training, and after one, three and thirty epochs. The table has the normalized mutual
information of clusters and classes, the share of images whose cluster is mostly of their class, and the accuracy of the
net; the first line is that of the pixels themselves, which are no bad embedding for centered digits.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor, nn

from callbacks.figures.style import COLORS, GRAY
from callbacks.monitors.embeddings import cluster, pooled, project
from experiments.studies import Row, digits, panels, publish, run

EPOCHS, BATCH = 30, 64
SHOWN = (0, 1, 3, EPOCHS)


def net() -> nn.Sequential:
    layer = partial(nn.Conv2d, kernel_size=3, padding=1, bias=False)
    return nn.Sequential(
        layer(1, 16), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        layer(16, 32), nn.BatchNorm2d(32), nn.ReLU(),
        layer(32, 64), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def stages(epochs: int = EPOCHS) -> dict[str, tuple[Tensor, float | None]]:
    """For pixels and after some epochs the embeddings (N, F) of the test images, and the accuracy in per cent."""
    torch.manual_seed(0)
    (x, label), (test_x, test_label), model = digits("train"), digits("test"), net()
    steps = len(x) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=epochs * steps)
    found: dict[str, tuple[Tensor, float | None]] = {"pixels": (pooled(test_x.flatten(1)), None)}
    for epoch in range(epochs + 1):
        if epoch in (*SHOWN, epochs):
            with torch.no_grad():
                model.train()(x[:256])  # the norms need statistics, also of a net that is not trained
                features = model.eval()[:-1](test_x)
                right = (model[-1](features).argmax(1) == test_label).float().mean().item()
            found[f"{epoch} epoch{'s' * (epoch != 1)}"] = pooled(features), 100 * right
        if epoch == epochs:
            break
        model.train()
        for batch in torch.randperm(len(x)).split(BATCH)[:steps]:
            loss = F.cross_entropy(model(x[batch]), label[batch], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return found


def row(name: str, embeddings: Tensor, accuracy: float | None) -> Row:
    labels = digits("test")[1].numpy()
    clusters = cluster(embeddings.numpy(), 10)
    counts = np.zeros((10, 10), dtype=int)
    np.add.at(counts, (labels, clusters), 1)
    return {
        "embedding": name,
        "numbers": embeddings.size(1),
        "nmi": round(float(normalized_mutual_info_score(labels, clusters)), 4),
        "share in own cluster": round(counts.max(0).sum() / len(labels), 4),
        "accuracy": None if accuracy is None else round(accuracy, 2),
    }


def draw(found: dict[str, tuple[Tensor, float | None]], rows: list[Row]) -> Figure:
    names = [f"{line['embedding']}: NMI {line['nmi']}" for line in rows]
    figure, places = panels(
        "Embeddings of 360 digits by t-SNE, colors: classes", 1, len(rows), (2.8 * len(rows), 3.4), names
    )
    labels = digits("test")[1]
    for axes, (embeddings, _) in zip(places, found.values(), strict=True):
        points = project(embeddings.numpy())
        assert points is not None
        for digit in range(10):
            own = points[labels == digit]
            color, marker = COLORS[digit % len(COLORS)], "os"[digit // len(COLORS)]
            axes.scatter(own[:, 0], own[:, 1], s=8, color=color, marker=marker, linewidths=0)
            axes.annotate(
                str(digit), np.median(own, axis=0), color="black", size=10, weight="bold", ha="center", va="center"
            )
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color(GRAY)
        axes.spines[:].set_visible(False)
    return figure


def main(folder: Path, epochs: int = EPOCHS) -> None:
    found = stages(epochs)
    rows = [row(name, embeddings, accuracy) for name, (embeddings, accuracy) in found.items()]
    publish(folder, "embeddings", draw(found, rows), rows)


if __name__ == "__main__":
    run(main, __doc__)
