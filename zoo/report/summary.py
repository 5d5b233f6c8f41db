"""What a command that trained or evaluated tells at its end: the figures, where the page is, and what to do next."""

import os
import shlex
import sys
from pathlib import Path

from callbacks.figures.curves import split_of
from callbacks.monitors.curves import axes_of, epoch_metrics
from callbacks.runtime.duration import duration
from datamodules.loader import num_samples
from zoo import trust
from zoo.classification.base import Classifier
from zoo.command import recipes
from zoo.command.lightning_cli import ZooCLI
from zoo.report.curves import value_text
from zoo.report.page import write_report
from zoo.report.recorder import Recorder, are_other_data, differences
from zoo.report.run import FACTS, read_json

WIDTH = 19  # letters of the names
MAX_OTHERS = 2  # metrics beside the loss
SHOWN = {"fit": ("val", "test", "train"), "validate": ("val",), "test": ("test",)}  # splits, the most telling first


def summarize(cli: ZooCLI, verb: str) -> None:
    """Writes the page on a run and tells in a few lines what came out; on rank zero only.

    Args:
        cli: of the command.
        verb: "fit", "validate" or "test".
    """
    own_data = has_own_data(cli)
    found = figures(cli, verb, own_data)  # a collective call
    if not cli.trainer.is_global_zero:
        return
    page = try_report(cli.folder)  # first, as nobody may be there to read the lines
    say("result", found)
    if (picture := cli.folder / "pictures" / "result.png").is_file():
        say("picture", os.path.relpath(picture))
    say_where(cli.folder, page)
    say("next", next_command(cli, to_test=verb == "fit" and own_data))


def try_report(folder: Path) -> Path | None:
    """Writes the page on a run; None, and a line that says why, if that fails.

    A page that cannot be written must not cost the run: the training has been done, and its checkpoint is there.
    """
    try:
        return write_report(folder)
    except Exception as error:  # of any kind, see above
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        again = f"zoo report {shlex.quote(os.path.relpath(folder))}"
        print(f"the report could not be written ({reason}); `{again}` tries again", file=sys.stderr)
        return None


def say_where(folder: Path, page: Path | None) -> None:
    """Tells where the page on a run is, or where the run is if it has none."""
    say("report" if page else "run folder", os.path.relpath(page or folder))


def say(name: str, text: object) -> None:
    print(f"{name:<{WIDTH}}{text}", flush=True)


def figures(cli: ZooCLI, verb: str, own_data: bool) -> str:
    """The last values of the main metrics, whether the target is met, and after a training what it took."""
    axes, expect = axes_of(cli.model), None if own_data else cli.config_init.get("expect")
    values = {name: float(value) for name, value in epoch_metrics(cli.trainer).items()}
    found = [[name for name in values if split_of(name) == split] for split in SHOWN[verb]]
    names = next((some for some in found if some), [])  # of training only where there is nothing else
    known = [f"{split_of(name)}/{metric}" for name in names[:1] for metric in axes]
    target_metric = expect.metric if expect is not None else ""
    names = [name for name in known if name in names] or sorted(names)  # those that the module says something about
    losses = [name for name in names if name.endswith("/loss")]
    others = sorted((name for name in names if name not in losses), key=lambda name: name != target_metric)
    names = sorted([*others[:MAX_OTHERS], *losses], key=lambda name: name != target_metric)
    parts = [f"{name} {value_text(name, values[name], axes)}" for name in names]
    if expect is not None and expect.metric in names:
        target = value_text(expect.metric, expect.target, axes)
        parts[0] += f" (target {target}: {'met' if expect.met(values[expect.metric]) else 'missed'})"
    if verb == "fit":
        recorded = [one.facts for one in cli.trainer.callbacks if isinstance(one, Recorder) and one.facts]
        parts += [f"{duration(facts['seconds'])}, {facts['tflop']:.3g} TFLOP" for facts in recorded]
    return ", ".join(parts) or "no metric was logged"


def has_own_data(cli: ZooCLI) -> bool:
    """Whether the data are others than the recipe's, to which its target belongs."""
    return bool(read_json(cli.folder / FACTS).get("own_data")) or are_other_data(differences(cli))


def next_command(cli: ZooCLI, to_test: bool = False) -> str:
    """The command that makes use of what was trained, or that looks at it.

    Args:
        cli: of the command.
        to_test: whether a test comes first, where the data have a part for it.
    """
    model, data = cli.model, cli.datamodule
    run = shlex.quote(os.path.relpath(cli.folder))
    checkpoints = any((cli.folder / "checkpoints").glob("*.ckpt"))
    classifies = hasattr(model, "detect") or isinstance(model, Classifier)
    if not checkpoints:
        command = f"zoo report {run}"
    elif to_test and "test" in data.datasets and num_samples(data.datasets["test"]):
        command = f"zoo test {run}"
    elif hasattr(model, "generate") and hasattr(data, "tokenizer"):
        command = f"zoo generate {run}"
    elif hasattr(data, "tokenizer") and data.tokenizer.token_to_id("[MASK]") is not None:
        command = f'zoo fill {run} "A TEXT WITH [MASK]"'
    elif classifies and hasattr(data, "classes") and hasattr(data, "image_shape"):
        command = f"zoo predict {run} YOUR_IMAGES"
    elif hasattr(model, "rank"):
        command = f'zoo find {run} "A SENTENCE" --folder YOUR_IMAGES'
    elif hasattr(data, "content"):
        command = f"zoo fit {shlex.quote(recipe_of(cli))} --data.content YOUR_IMAGE"
    else:
        command = f"zoo compare {run} ANOTHER_RUN"
    return " ".join([command, *trust.options(cli.settings)])


def recipe_of(cli: ZooCLI) -> str:
    """The recipe as it can be typed again."""
    name = recipes.name_of(cli.recipe)
    return name if name in recipes.names() else os.path.relpath(cli.recipe)
