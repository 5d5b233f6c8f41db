"""`zoo demo`: the flagship on Fashion-MNIST from nothing to pictures."""

import time
from pathlib import Path

from callbacks.work import TrainingWork
from datamodules.fashion_mnist import FashionMNIST
from zoo.lightning_cli import ZooCLI

FLAGSHIP, WITHOUT_DATA = "fashion_mnist/flagship", "digits/small"


def demo(options: list[str]) -> Path:
    """Trains, tests, draws; prints what came out and where it lies.

    Args:
        options: override the recipe's, such as --trainer.max_epochs 2.

    Returns:
        The run folder.
    """
    recipe = FLAGSHIP
    try:
        FashionMNIST().prepare_data()
    except FileNotFoundError as error:
        recipe = WITHOUT_DATA
        print(f"{error}.\nGoing on with scikit-learn's digits, which are here: {recipe}.", flush=True)
    cli = ZooCLI(recipe, options)
    print(f"Training {recipe} ({cli.trainer.max_epochs} epochs); everything goes to {cli.folder}", flush=True)
    began = time.perf_counter()
    cli.trainer.fit(cli.model, cli.datamodule)
    seconds = time.perf_counter() - began
    result = cli.trainer.test(cli.model, cli.datamodule, verbose=False)[0]
    work = next(callback for callback in cli.trainer.callbacks if isinstance(callback, TrainingWork))
    print(f"\ntest accuracy  {100 * result['test/acc']:.2f} %")
    print(f"training       {seconds:.0f} s, {work.tflop:.1f} TFLOP")
    for picture in sorted(cli.folder.glob("pictures/*.png")):
        print(f"{picture.stem:<14} {picture}")
    print(f"checkpoint     {cli.folder / 'checkpoints' / 'last.ckpt'}")
    print(f"try it         zoo predict {recipe} YOUR_PICTURES")
    return cli.folder
