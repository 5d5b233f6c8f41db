"""CIFAR-10: 50 000 + 10 000 small color photographs, 32 x 32, ten classes.

Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images", section 3.
"""

import torchvision

from datamodules.image import TorchvisionImages


class CIFAR10(TorchvisionImages):
    """CIFAR-10 in memory.

    >>> CIFAR10().image_shape
    (3, 32, 32)
    """

    name = "CIFAR-10"
    dataset = torchvision.datasets.CIFAR10
    checksums = {
        "cifar-10-batches-py/data_batch_1": "c99cafc152244af753f735de768cd75f",
        "cifar-10-batches-py/data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "cifar-10-batches-py/data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "cifar-10-batches-py/data_batch_4": "634d18415352ddfa80567beed471001a",
        "cifar-10-batches-py/data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "cifar-10-batches-py/test_batch": "40351d587109b95175f43aff81a1287e",
        "cifar-10-batches-py/batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
    }
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)  # of all pixels; the common 0.2023, 0.1994, 0.2010 is a mean over images instead
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    image_shape = (3, 32, 32)
