"""Fashion-MNIST: 60 000 + 10 000 grayscale images of clothes, 28 x 28, ten classes.

Xiao, Rasul and Vollgraf 2017, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms".
"""

import torchvision

from datamodules import files
from datamodules.image import TorchvisionImages


class FashionMNIST(TorchvisionImages):
    """Fashion-MNIST in memory.

    The files are taken from `data_dir`, else from the folder where Debian's package dataset-fashion-mnist puts them,
    else from torchvision's download, else from Debian's package itself (without root).

    >>> FashionMNIST(batch_size=256).num_classes
    10
    """

    name = "Fashion-MNIST"
    dataset = torchvision.datasets.FashionMNIST
    checksums = {
        "FashionMNIST/raw/train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "FashionMNIST/raw/train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "FashionMNIST/raw/t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "FashionMNIST/raw/t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    }
    mean, std = (0.2860,), (0.3530,)
    license = "MIT: Zalando SE 2017, Fashion-MNIST"
    classes = (
        "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
    )  # fmt: skip
    image_shape = (1, 28, 28)

    def sources(self) -> dict:
        raw, system = "FashionMNIST/raw", files.SYSTEM_FOLDER / "fashion-mnist"
        return {
            str(system): lambda folder: files.unpack(system, folder / raw),
            **super().sources(),
            "Debian's package": files.debian_package("dataset-fashion-mnist", system, raw),
        }
