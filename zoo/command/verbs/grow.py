"""Animate a trained cellular automaton; without a name, list those that come with the package.

    zoo grow
    zoo grow starry_night --size 200 300

Imports no Lightning, which would take longer than the work.
"""

import argparse
import difflib
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from callbacks.figures.animation import strip, write_gif
from callbacks.figures.style import pixels, save_figure
from datamodules.io import atomic_write
from zoo.parts.nca import NCA

AUTOMATA = Path(__file__).parents[2] / "weights" / "automata"
FRAMES = 100  # of an animation, about
MAX_SIDE = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="automaton or file; without it, the names are listed")
    parser.add_argument("--size", type=int, nargs="+", default=[128], help="pixels, one number or height and width")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default=".", help="folder of the animation")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    print(*grow(args.name, args.size, args.steps, args.seed, args.out), sep="\n")
    return 0


def save(net: NCA, path: str | Path, card: dict[str, str]) -> Path:
    """Writes an automaton and what is to be known of it (texture, recipe, steps, losses) as a safetensors file."""
    with atomic_write(path) as part:
        save_file({name: tensor.cpu().contiguous() for name, tensor in net.state_dict().items()}, part, card)
    return Path(path)


def load(path: str | Path) -> tuple[NCA, dict[str, str]]:
    """An automaton that `save` wrote, and its card.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no automaton.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist: expected a .safetensors file of an automaton; check the path")
    try:
        with safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
            card = file.metadata() or {}
        channels, hidden = state["brain.2.weight"].shape[:2]
        net = NCA(channels, hidden)
        net.load_state_dict(state)
    except (SafetensorError, OSError, KeyError, IndexError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(
            f"{path} holds no automaton ({reason}): expected what experiments/scripts/export_automaton.py writes; "
            "export it again"
        ) from None
    return net.eval(), card


def names() -> list[str]:
    return sorted(path.stem for path in AUTOMATA.glob("*.safetensors"))


def grow(name: str | None, size: list[int], steps: int, seed: int, out: str) -> list[str]:
    """Animates an automaton from its seed: `NAME.gif`, and some frames side by side as `NAME.png`.

    Args:
        name: of an automaton on the shelf, or a safetensors file; None only lists the names.
        size: side of the picture, or height and width, in pixels.
        steps: of the automaton.
        seed: of the random masks.
        out: folder of the files.

    Returns:
        The lines to be printed: the files, or the names and what they are.

    Raises:
        ValueError: for an unknown name, a file without an automaton, sizes or steps that make no sense.
        FileNotFoundError: if there is no such file.
    """
    if name is None:
        return [_line(known) for known in names()]
    if len(size) not in (1, 2) or not all(1 <= side <= MAX_SIDE for side in size):
        raise ValueError(f"size is {size}: expected one or two numbers of pixels from 1 to {MAX_SIDE}")
    if steps < 1:
        raise ValueError(f"steps is {steps}: expected 1 or more")
    if not name.endswith(".safetensors") and name not in names():
        near = difflib.get_close_matches(name, names(), 3, cutoff=0.4) or names()
        raise ValueError(
            f"unknown automaton {name!r}: expected a name or a .safetensors file; nearest: {', '.join(near)}"
        )
    path = Path(name) if name.endswith(".safetensors") else AUTOMATA / f"{name}.safetensors"
    net, card = load(path)
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{out} is a file: expected a folder for the animation; choose another")
    every = max(1, round(steps / FRAMES))
    film = net.rollout((size[0], size[-1]), steps // every + 1, every, seed)
    images = [pixels(image) for image in film]
    gif, png = folder / f"{path.stem}.gif", folder / f"{path.stem}.png"
    write_gif(gif, images)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    figure = strip(images, every, f"{card.get('texture', path.stem)}: {parameters} parameters")
    save_figure(figure, png)
    return [str(gif), str(png)]


def _line(name: str) -> str:
    net, card = load(AUTOMATA / f"{name}.safetensors")
    parameters = sum(parameter.numel() for parameter in net.parameters())
    return f"{name:16} {parameters} parameters, {card.get('texture', '')}"
