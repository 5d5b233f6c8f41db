"""A small net, noise to train it on and a short run: what tests of callbacks have in common."""

from functools import partial

import torch

from helpers import Synthetic, quiet_trainer
from zoo.classification.plain_conv import PlainConv
from zoo.parts.optim.schedules import Constant


def model(lr: float = 0.01) -> PlainConv:
    torch.manual_seed(0)
    return PlainConv(optimizer=partial(torch.optim.SGD, lr=lr), schedule=Constant)


def data(n: int = 32, **options) -> Synthetic:
    return Synthetic(sizes=(n, 8, 8), image_shape=(1, 28, 28), batch_size=8, **options)


def fit(module: PlainConv, *callbacks, **options) -> PlainConv:
    options = {"max_epochs": 1, "num_sanity_val_steps": 0} | options
    quiet_trainer(callbacks=list(callbacks), **options).fit(module, datamodule=data())
    return module
