"""ResNet-18 on CIFAR-10 without the `zoo` command: python experiments/scripts/resnet18_cifar10.py

On a machine with a GPU this is the recipe cifar10/resnet18; elsewhere pass a number of batches an epoch to try it.
"""

import sys

import torch
from lightning import Trainer, seed_everything

from callbacks.galleries.gradcam import GradCAMGallery
from callbacks.galleries.misclassified import MisclassifiedGallery
from callbacks.monitors.curves import Curves
from datamodules.augment.images import Crop, Cutout, Flip
from datamodules.images.cifar10 import CIFAR10
from zoo.classification.resnet import ResNet18

if __name__ == "__main__":
    limit = int(sys.argv[1]) if len(sys.argv) > 1 else None
    seed_everything(0)
    model = ResNet18(num_classes=10, label_smoothing=0.1, flip_tta=True)
    data = CIFAR10(batch_size=256, val_size=1000, augment=[Crop(4), Flip(), Cutout(16)])
    trainer = Trainer(
        max_epochs=20,
        precision="bf16-mixed" if torch.cuda.is_available() else "32-true",
        callbacks=[Curves(), MisclassifiedGallery(10), GradCAMGallery(10)],
        limit_train_batches=limit,
        limit_test_batches=limit,
    )
    trainer.fit(model, data)
    trainer.test(model, data)
