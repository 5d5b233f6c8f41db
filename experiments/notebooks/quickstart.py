# The quickstart as a script; `python -m experiments.notebooks.convert` makes quickstart.ipynb of it.

# %% [markdown]
# # Quickstart
#
# A ready model, a training with its curves and Grad-CAM, and a system in plain Python. Everything here runs on
# scikit-learn's handwritten digits, which need no download, and takes about a minute on a processor.

# %%
from functools import partial

import torch
from lightning import Trainer, seed_everything
from PIL import Image

import zoo
from callbacks.galleries.gradcam import GradCAMGallery
from callbacks.galleries.misclassified import MisclassifiedGallery
from callbacks.monitors.curves import Curves
from datamodules.images.digits import Digits
from zoo.classification.resnet_mini import ResNetMini
from zoo.parts.optim.muon import Muon
from zoo.parts.optim.schedules import OneCycle

# %% [markdown]
# ## A ready model
#
# `zoo.load` takes the name of a ready model, the folder of a run, or a file. The model comes in evaluation mode, with
# the names of its classes, with what prepares images for it, and with a card that says where it is from.

# %%
model = zoo.load("digits/small")
print(model.card.recipe, "reaches", model.card.reached)
print(model.preprocess)

# %% [markdown]
# `preprocess` takes files, images or arrays. Here are ten images that the model has not seen.

# %%
test = Digits().make_datasets()["test"]
images = [image[0].numpy() for image in test.images[:10]]
with torch.inference_mode():
    shares = model(model.preprocess(images)).softmax(-1)
for truth, share in zip(test.labels[:10].tolist(), shares, strict=True):
    print(f"{truth} is taken for {model.classes[share.argmax()]}, {share.max():.2f} sure")

# %% [markdown]
# At a terminal `zoo predict digits/small PICTURES` does the same for files and folders.
#
# ## A training
#
# A system is a `LightningModule`, its data are a `LightningDataModule`, and callbacks draw what is worth seeing. The
# optimizer and the schedule are arguments, as everything else is. (`zoo fit digits/small` does this, and more, from a
# recipe.)

# %%
seed_everything(0)
system = ResNetMini(
    num_classes=10,
    strides=(1, 1, 2),
    stem_pool=False,
    optimizer=partial(Muon, lr=0.05, adam_lr=0.01),
    schedule=partial(OneCycle, peak=0.2),
)
data = Digits(batch_size=64)
trainer = Trainer(
    max_epochs=5,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    default_root_dir="runs/quickstart",
    callbacks=[Curves(), MisclassifiedGallery(10), GradCAMGallery(10, method="LayerCAM")],
)
trainer.fit(system, data)
print(trainer.test(system, data, verbose=False))

# %% [markdown]
# ## What it learned
#
# The curves: loss and accuracy over the epochs, for training and validation.

# %%
Image.open("runs/quickstart/pictures/curves.png")

# %% [markdown]
# The worst mistakes on the test set, and where the net looked when it made them.

# %%
Image.open("runs/quickstart/pictures/gradcam_test.png")

# %% [markdown]
# ## A system in plain Python
#
# The net of a system is a plain `torch.nn.Module`, and the datamodule's loaders yield plain named tuples. Both work
# without Lightning.

# %%
data.setup("fit")
net = ResNetMini(num_classes=10, strides=(1, 1, 2), stem_pool=False).net
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
for step, batch in enumerate(data.train_dataloader()):
    batch = data.on_after_batch_transfer(batch, 0)  # pixels become float32 and are normalized
    loss = torch.nn.functional.cross_entropy(net(batch.image), batch.label)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 5 == 0:
        print(f"step {step}: loss {loss.item():.3f}")

# %% [markdown]
# ## Where to go from here
#
# - `zoo list` shows all recipes, `zoo fit own/pictures --data.folder FOLDER` trains on your own pictures.
# - Each system is one file that can be read in one sitting, such as `zoo/classification/resnet_mini.py`.
