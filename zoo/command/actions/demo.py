"""What `zoo demo` does, see `zoo.command.verbs.demo`."""

import argparse
import time
from pathlib import Path

from PIL import Image

from datamodules.images.fashion_mnist import FashionMNIST
from datamodules.io import atomic_write
from zoo.command.lightning_cli import ZooCLI
from zoo.report.recorder import attach
from zoo.report.summary import say, summarize

FLAGSHIP, WITHOUT_DATA = "fashion_mnist/flagship", "digits/small"
MAX_WIDTH = 1100  # pixels of the overview


def run(args: argparse.Namespace, rest: list[str]) -> int:
    demo(rest)
    return 0


def demo(options: list[str]) -> Path:
    """Trains, tests and draws; prints the result and where the files are.

    Args:
        options: override the recipe's, such as ["--trainer.max_epochs", "2"].

    Returns:
        The run folder.
    """
    recipe = FLAGSHIP
    try:
        FashionMNIST().prepare_data()
    except FileNotFoundError as error:
        recipe = WITHOUT_DATA
        print(f"{error}.\nGoing on with scikit-learn's digits, which need no download: {recipe}.", flush=True)
    cli = ZooCLI(recipe, options)
    print(f"Training {recipe} ({cli.trainer.max_epochs} epochs); run folder {cli.folder}", flush=True)
    attach(cli)
    began = time.perf_counter()
    cli.trainer.fit(cli.model, cli.datamodule)
    seconds = time.perf_counter() - began
    result = cli.trainer.test(cli.model, cli.datamodule, verbose=False)[0]
    print()
    say("test accuracy", f"{100 * result['test/acc']:.2f} %")
    say("training", f"{seconds:.0f} s, {cli.flop_counter.tflop:.1f} TFLOP")
    overview(cli.folder / "pictures")
    for path in sorted(cli.folder.glob("pictures/*.png")):
        say(path.stem, path)
    say("checkpoint", cli.folder / "checkpoints" / "last.ckpt")
    summarize(cli, "test")
    return cli.folder


def overview(folder: Path) -> None:
    """Writes the curves and the figures of the test set, one below the other, as `overview.png`."""
    wanted = (folder / f"{name}.png" for name in ("curves", "misclassified_test", "gradcam_test"))
    figures = [Image.open(path).convert("RGB") for path in wanted if path.is_file()]
    width = min(MAX_WIDTH, *(figure.width for figure in figures))
    scaled = [figure.resize((width, round(figure.height * width / figure.width))) for figure in figures]
    sheet = Image.new("RGB", (width, sum(figure.height for figure in scaled)), "white")
    top = 0
    for figure in scaled:
        sheet.paste(figure, (0, top))
        top += figure.height
    with atomic_write(folder / "overview.png") as temporary:
        sheet.quantize(256).save(temporary, format="png", optimize=True)
