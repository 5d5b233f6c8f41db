"""Train ResNet-18 on CIFAR-10 without the `zoo` command, as the recipe cifar10/resnet18 does on a GPU.

    python experiments/scripts/resnet18_cifar10.py --epochs 1 --batches 10

Without options it is the complete training. Writes curves, the ten worst mistakes on the test images and their Grad-CAM
into ./lightning_logs.
"""

import argparse

import torch
from lightning import Trainer, seed_everything

from callbacks.galleries.gradcam import GradCAMGallery
from callbacks.galleries.misclassified import MisclassifiedGallery
from callbacks.monitors.curves import Curves
from datamodules.augment.images import Crop, Cutout, Flip
from datamodules.images.cifar10 import CIFAR10
from zoo.classification.resnet import ResNet18


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batches", type=int, help="of training and test in an epoch; default all")
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--val_size", type=int, default=1000, help="training images held out for validation")
    args = parser.parse_args()
    seed_everything(0)
    model = ResNet18(num_classes=10, label_smoothing=0.1, flip_tta=True)
    data = CIFAR10(batch_size=args.batch_size, val_size=args.val_size, augment=[Crop(4), Flip(), Cutout(16)])
    trainer = Trainer(
        max_epochs=args.epochs,
        precision="bf16-mixed" if torch.cuda.is_available() else "32-true",
        callbacks=[Curves(), MisclassifiedGallery(10), GradCAMGallery(10)],
        limit_train_batches=args.batches,
        limit_test_batches=args.batches,
    )
    trainer.fit(model, data)
    trainer.test(model, data)


if __name__ == "__main__":
    main()
