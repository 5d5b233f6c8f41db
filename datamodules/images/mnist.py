"""MNIST: 60 000 + 10 000 grayscale images of handwritten digits, 28 x 28.

LeCun, Bottou, Bengio and Haffner 1998, "Gradient-Based Learning Applied to Document Recognition", section III.A.
"""

import torchvision

from datamodules.image import TorchvisionImages


class MNIST(TorchvisionImages):
    """MNIST in memory.

    >>> MNIST().classes[7]
    '7'
    """

    name = "MNIST"
    dataset = torchvision.datasets.MNIST
    checksums = {
        "MNIST/raw/train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "MNIST/raw/train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "MNIST/raw/t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "MNIST/raw/t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    }
    mean, std = (0.1307,), (0.3081,)
    license = "CC BY-SA 3.0: LeCun, Cortes and Burges 1998, MNIST"
    classes = tuple("0123456789")
    image_shape = (1, 28, 28)
