"""What `zoo grow` does, see `zoo.command.verbs.grow`."""

# For automata by name it imports neither Lightning nor torchmetrics, which would take longer than the work.

import argparse
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from callbacks.figures.animation import strip, write_gif
from callbacks.figures.style import pixels, save_figure
from datamodules.io import atomic_write
from datamodules.messages import nearest_names
from zoo.inference import ready
from zoo.parts.nca import NCA

AUTOMATA = ready.WEIGHTS / "automata"
NUM_FRAMES = 100  # of an animation, about
MAX_SIDE = 1024  # pixels


def run(args: argparse.Namespace, rest: list[str]) -> int:
    if args.name is None:
        print(*map(describe, names()), sep="\n")
    else:
        print(*grow(args.name, size=args.size, steps=args.steps, seed=args.seed, out=args.out), sep="\n")
    return 0


def save_automaton(net: NCA, path: str | Path, metadata: dict[str, str]) -> Path:
    """Writes an automaton and its metadata (texture, recipe, steps, losses) as a safetensors file; returns its path."""
    with atomic_write(path) as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in net.state_dict().items()}, temporary, metadata)
    return Path(path)


def load_automaton(path: str | Path) -> tuple[NCA, dict[str, str]]:
    """An automaton that `save_automaton` wrote, and its metadata.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no automaton.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist: expected a .safetensors file of an automaton; check the path")
    try:
        with safe_open(path, "pt") as file:
            keys = file.keys()
            state = {name.removeprefix("net."): file.get_tensor(name).float() for name in keys}
            metadata = file.metadata() or {}
        channels, hidden = state["brain.2.weight"].shape[:2]
        net = NCA(channels, hidden)
        net.load_state_dict(state)
    except (SafetensorError, OSError, KeyError, IndexError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(
            f"{path} holds no automaton ({reason}): expected what `zoo publish` writes of a run of texture-nca; "
            "publish it again"
        ) from None
    return net.eval(), metadata


def names() -> list[str]:
    """The automata that come with the package."""
    return sorted(path.stem for path in AUTOMATA.glob("*.safetensors"))


def describe(name: str) -> str:
    """A line about an automaton that comes with the package."""
    net, metadata = load_automaton(AUTOMATA / f"{name}.safetensors")
    return f"{name:16} {_num_parameters(net)} parameters, {_subject(metadata)}"


def grow(name: str, size: list[int], steps: int, seed: int, out: str | Path) -> list[str]:
    """Animates an automaton from its seed state: `NAME.gif`, and some frames next to each other as `NAME.png`.

    Args:
        name: of an automaton that comes with the package; or a file of `zoo publish`, the folder of a run, a
            checkpoint, or a recipe, whose newest run counts.
        size: side of the image, or height and width, in pixels.
        steps: of the automaton.
        seed: of the random masks.
        out: folder of the files.

    Returns:
        The files.

    Raises:
        ValueError: for an unknown name, a file without an automaton, sizes or steps out of range.
        FileNotFoundError: if there is no such file.
    """
    if len(size) not in (1, 2) or not all(1 <= side <= MAX_SIDE for side in size):
        raise ValueError(f"size is {size}: expected one or two numbers of pixels from 1 to {MAX_SIDE}")
    if steps < 1:
        raise ValueError(f"steps is {steps}: expected 1 or more")
    net, stem, title = find_automaton(name)
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{out} is a file: expected a folder for the animation; choose another")
    every = max(1, round(steps / NUM_FRAMES))
    images = [pixels(image) for image in net.rollout((size[0], size[-1]), steps // every + 1, every, seed)]
    gif, png = folder / f"{stem}.gif", folder / f"{stem}.png"
    write_gif(gif, images)
    save_figure(strip(images, every, f"{title}: {_num_parameters(net)} parameters"), png)
    return [str(gif), str(png)]


def find_automaton(name: str) -> tuple[NCA, str, str]:
    """The automaton that a user means, a name for its files, and what it grows; see `grow`."""
    known = name.removesuffix("@ready").removeprefix("automata/")
    if name.endswith(".safetensors") or known in names():
        path = Path(name) if name.endswith(".safetensors") else AUTOMATA / f"{known}.safetensors"
        net, metadata = load_automaton(path)
        return net, path.stem, _subject(metadata) or path.stem
    if "/" not in name and not name.endswith(".ckpt"):
        hint = nearest_names(name, names(), "see `zoo grow`")
        raise ValueError(f"unknown automaton {name!r}: expected a name or a .safetensors file; {hint}")
    from zoo.command.checkpoints import checkpoint_of, load_module  # here, as it takes seconds

    path = checkpoint_of(name)
    module, _ = load_module(path, needs=None)
    if not isinstance(module.net, NCA):
        raise ValueError(f"{path} holds a {type(module).__name__}: expected a run of texture-nca; see `zoo list`")
    stem = Path(name.removesuffix("@ready")).stem
    return module.net, stem, stem


def _subject(metadata: dict[str, str]) -> str:
    """What an automaton grows, by its metadata."""
    return metadata.get("description") or metadata.get("texture", "")


def _num_parameters(net: NCA) -> int:
    return sum(parameter.numel() for parameter in net.parameters())
