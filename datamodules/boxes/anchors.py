"""Anchor boxes for a data set: k-means on box sizes.

Redmon and Farhadi 2017, "YOLO9000: Better, Faster, Stronger", section 2, "Dimension Clusters": k-means with the
distance 1 - IoU of two boxes with a common corner, since Euclidean distance is dominated by large boxes.
N boxes, K anchors; sizes are (width, height) in fractions of the image.
"""

import numpy as np
from sklearn.cluster import KMeans

SMALLER = 0.7  # of anchors that are added, where there are fewer sizes than anchors


def iou(sizes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (N, 2) and anchors (K, 2) that share a corner: (N, K).

    >>> iou(np.array([[2.0, 2.0]]), np.array([[2.0, 1.0], [4.0, 4.0]]))
    array([[0.5 , 0.25]])
    """
    common = np.minimum(sizes[:, None], anchors).prod(2)
    return common / (sizes.prod(1)[:, None] + anchors.prod(1) - common)


def mean_iou(sizes: np.ndarray, anchors: np.ndarray) -> float:
    """Mean over the boxes (N, 2) of the IoU with the best of the anchors (K, 2)."""
    return float(iou(sizes, anchors).max(1).mean())


def different_sizes(sizes: np.ndarray) -> int:
    """How many different boxes (N, 2) there are, to a ten thousandth of the image: equal ones differ by rounding.

    >>> different_sizes(np.array([[0.1 + 0.2, 0.5], [0.3, 0.5], [0.3, 0.6]]))
    2
    """
    return len(np.unique(sizes.round(4), axis=0))


def fit_anchors(sizes: np.ndarray, k: int, starts: int = 20, seed: int = 0) -> np.ndarray:
    """The `k` anchors (k, 2) with the best mean IoU of several starts, in the order of their area.

    From each start a hill climb follows: boxes are assigned to the anchor of largest IoU, and an anchor moves to the
    mean or the median of its boxes only if their IoU grows. The first start is the result of Euclidean k-means, so the
    anchors are never worse than that.

    Args:
        sizes: (N, 2), all above 0.
        k: number of anchors; at most `different_sizes(sizes)`.
        starts: number of starts: Euclidean k-means, then k-means++ with the distance 1 - IoU.
        seed: of the starts.

    Raises:
        ValueError: if there are fewer than `k` different sizes.
    """
    different = different_sizes(sizes)
    if not 1 <= k <= different:
        raise ValueError(f"k is {k}: expected 1 to {different}, the number of different box sizes")
    rng = np.random.default_rng(seed)
    first = KMeans(k, n_init=10, random_state=seed).fit(sizes).cluster_centers_
    further = (_kmeans_plus_plus(sizes, k, rng) for _ in range(starts - 1))
    best = max((_hill_climb(sizes, start) for start in (first, *further)), key=lambda found: mean_iou(sizes, found))
    return best[np.argsort(best.prod(1))]


def _kmeans_plus_plus(sizes: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Arthur and Vassilvitskii 2007: each anchor is a random box, drawn with its squared distance to those before."""
    anchors = sizes[rng.integers(len(sizes), size=1)]
    while len(anchors) < k:
        weight = (1 - iou(sizes, anchors).max(1)) ** 2
        anchors = np.concatenate([anchors, sizes[rng.choice(len(sizes), size=1, p=weight / weight.sum())]])
    return anchors


def _hill_climb(sizes: np.ndarray, anchors: np.ndarray, steps: int = 300) -> np.ndarray:
    anchors, best = anchors.copy(), -1.0
    for _ in range(steps):
        table = iou(sizes, anchors)
        nearest, value = table.argmax(1), table.max(1).mean()
        if value <= best + 1e-7:
            break
        best = value
        for i in np.unique(nearest):
            assigned = sizes[nearest == i]
            candidates = np.stack([anchors[i], assigned.mean(0), np.median(assigned, 0)])
            anchors[i] = candidates[iou(assigned, candidates).mean(0).argmax()]
    return anchors


def found_anchors(sizes: np.ndarray, k: int, most: int = 5000) -> tuple[list[list[float]], float]:
    """Anchors as a detector takes them, and their mean IoU with the boxes.

    Where the boxes have fewer than `k` different sizes, smaller copies of those are added.

    Args:
        sizes: (N, 2) in shares of the image.
        k: number of anchors.
        most: boxes that are clustered; of more a random part is.

    Raises:
        ValueError: if there are no boxes, or k is below 1.
    """
    if not len(sizes):
        raise ValueError("the training images have no boxes: expected some to find anchors for; annotate some images")
    used = sizes
    if len(sizes) > most:
        used = sizes[np.random.default_rng(0).choice(len(sizes), most, replace=False)]
    found = fit_anchors(used, min(k, different_sizes(used)), starts=10)
    smaller = [found * SMALLER**number for number in range(1, -(-k // len(found)))]
    anchors = np.concatenate([found, *smaller])[:k].clip(1e-3, 1.0)
    return anchors.round(4).tolist(), mean_iou(sizes, anchors)
