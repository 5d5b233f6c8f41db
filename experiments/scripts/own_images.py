"""Train a small baseline on your own images, one folder for each class, without the `zoo` command.

    python experiments/scripts/own_images.py FOLDER --epochs 20

Writes curves, the ten worst mistakes on the test images and their Grad-CAM into ./lightning_logs.
"""

import argparse
from pathlib import Path

from lightning import Trainer, seed_everything

from callbacks.galleries.gradcam import GradCAMGallery
from callbacks.galleries.misclassified import MisclassifiedGallery
from callbacks.monitors.curves import Curves
from datamodules.images.image_folder import ImageFolder
from zoo.classification.resnet import ResNet18


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="holds one folder for each class")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--image_size", type=int, default=64, help="pixels, height and width")
    args = parser.parse_args()
    seed_everything(0)
    data = ImageFolder(str(args.folder), image_size=args.image_size, batch_size=32)
    model = ResNet18(num_classes=data.num_classes)
    trainer = Trainer(max_epochs=args.epochs, callbacks=[Curves(), MisclassifiedGallery(10), GradCAMGallery(10)])
    trainer.fit(model, data)
    trainer.test(model, data)


if __name__ == "__main__":
    main()
