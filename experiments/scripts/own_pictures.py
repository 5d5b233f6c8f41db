"""Your own pictures, one folder a class: python experiments/scripts/own_pictures.py FOLDER [EPOCHS]

Trains a small baseline and leaves curves, the ten worst mistakes and Grad-CAM in ./lightning_logs.
"""

import sys

from lightning import Trainer, seed_everything

from callbacks.galleries.gradcam import GradCAMGallery
from callbacks.galleries.misclassified import MisclassifiedGallery
from callbacks.monitors.curves import Curves
from datamodules.images.image_folder import ImageFolder
from zoo.classification.resnet import ResNet18

if __name__ == "__main__":
    seed_everything(0)
    data = ImageFolder(sys.argv[1], image_size=64, batch_size=32)
    model = ResNet18(num_classes=data.num_classes)
    epochs = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    trainer = Trainer(max_epochs=epochs, callbacks=[Curves(), MisclassifiedGallery(10), GradCAMGallery(10)])
    trainer.fit(model, data)
    trainer.test(model, data)
