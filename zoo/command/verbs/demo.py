"""Train the flagship on Fashion-MNIST and draw curves, mistakes and Grad-CAM.

    zoo demo

Without Fashion-MNIST and with no way to get it, it takes scikit-learn's digits, and says so.
"""

import argparse
import time
from pathlib import Path

from PIL import Image

from callbacks.monitors.flops import FlopCounter
from datamodules.images.fashion_mnist import FashionMNIST
from zoo.command.lightning_cli import ZooCLI

FLAGSHIP, WITHOUT_DATA = "fashion_mnist/flagship", "digits/small"


TAKES_OPTIONS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Options of the recipe may follow, such as --trainer.max_epochs 2."


def run(args: argparse.Namespace, rest: list[str]) -> int:
    demo(rest)
    return 0


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
    work = next(callback for callback in cli.trainer.callbacks if isinstance(callback, FlopCounter))
    print(f"\ntest accuracy      {100 * result['test/acc']:.2f} %")
    print(f"training           {seconds:.0f} s, {work.tflop:.1f} TFLOP")
    overview(cli.folder / "pictures")
    for picture in sorted(cli.folder.glob("pictures/*.png")):
        print(f"{picture.stem:<18} {picture}")
    print(f"checkpoint         {cli.folder / 'checkpoints' / 'last.ckpt'}")
    print(f"try it             zoo predict {recipe} YOUR_PICTURES")
    return cli.folder


def overview(folder: Path) -> None:
    """Puts the pictures of the test set and the curves below each other, as `overview.png`."""
    wanted = (folder / f"{name}.png" for name in ("curves", "misclassified_test", "gradcam_test"))
    pictures = [Image.open(path).convert("RGB") for path in wanted if path.is_file()]
    width = min(1100, *(picture.width for picture in pictures))
    scaled = [picture.resize((width, round(picture.height * width / picture.width))) for picture in pictures]
    whole = Image.new("RGB", (width, sum(picture.height for picture in scaled)), "white")
    top = 0
    for picture in scaled:
        whole.paste(picture, (0, top))
        top += picture.height
    whole.quantize(256).save(folder / "overview.png", optimize=True)
