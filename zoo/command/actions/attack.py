"""What `zoo attack` does, see `zoo.command.verbs.attack`."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from callbacks.figures.adversarial import Attacked, attack_figure
from callbacks.figures.style import save_figure
from datamodules.messages import nearest_names
from zoo.analysis.adversarial import fgsm, least_likely, logits_of, random_others, targeted
from zoo.classification.base import Classifier
from zoo.command import recipes
from zoo.command.actions.schedule import NO_TRAINING_OPTIONS
from zoo.command.checkpoints import checkpoint_of, config_of, is_ready, load_module
from zoo.command.lightning_cli import ZooCLI
from zoo.command.verbs.attack import LEAST_LIKELY
from zoo.inference.ready import SUFFIX

RANDOM = "random"


def run(args: argparse.Namespace, rest: list[str]) -> int:
    names = ("source", "targets", "epsilon", "steps", "limit", "n", "seed", "out")
    report = attack(**{name: getattr(args, name) for name in names}, options=rest)
    if args.json:
        print(json.dumps(report, ensure_ascii=False))
        return 0
    success, amount = report["targeted_success"], f"epsilon {args.epsilon}"
    print(f"checkpoint        {report['checkpoint']}")
    print(f"accuracy          {100 * report['accuracy']:.2f} % of {report['images']} test images")
    print(f"after FGSM        {100 * report['fgsm_accuracy']:.2f} %, {amount}")
    rate = "no image" if success is None else f"{100 * success:.2f} %"
    attacked = f"{report['attacked']} images not taken for the target ({args.targets})"
    print(f"targeted success  {rate} of {attacked}, {args.steps} steps, {amount}")
    print(f"figure            {report['figure']}")
    return 0


def attack(
    source: str,
    targets: str = LEAST_LIKELY,
    epsilon: str = "8/255",
    steps: int = 6,
    limit: int | None = None,
    n: int = 10,
    seed: int = 0,
    out: str | Path | None = None,
    options: list[str] | None = None,
) -> dict[str, Any]:
    """Attacks a trained classifier on the test set of its data, and draws the first images.

    Args:
        source: run folder, checkpoint in one, or recipe, whose newest run counts.
        targets: the class to aim at: "least-likely", "random", or the name or number of a class.
        epsilon: largest change of a pixel, of images in 0..1; a number or a fraction.
        steps: of the targeted attack.
        limit: attack so many images of the test set; None for all.
        n: images to draw.
        seed: of random targets.
        out: file of the figure; by default it joins the pictures of the run.
        options: of the recipe.

    Returns:
        `accuracy` and `fgsm_accuracy` over the images, `targeted_success` over those that are not taken for the target
        anyway (`attacked` of them; None if there are none), and what it was computed with.

    Raises:
        ValueError, FileNotFoundError: if there is no such run, it holds no classifier, its data have no test set, or a
            number is out of range.
    """
    size = parse_epsilon(epsilon)
    for name, number in (("limit", limit), ("n", n), ("steps", steps)):
        if number is not None and number < 1:
            raise ValueError(f"{name} is {number}: expected 1 or more")
    checkpoint, config = find_run(source)
    model, metadata, device = load_classifier(checkpoint)
    classes = metadata["classes"]
    target = parse_target(targets, classes)
    cli = ZooCLI(str(config), [*(options or []), *NO_TRAINING_OPTIONS], folder=checkpoint.parent)
    data: Any = cli.datamodule
    statistics = {"mean": data.mean, "std": data.std, "epsilon": size}
    tally, shown = Tally(), list[Attacked]()
    for images, labels in normalized_batches(data, limit, device):
        aims = choose_targets(target, model, images, labels, len(classes), seed + tally.images)
        results = targeted(model, images, aims, **statistics, steps=steps)
        fast = logits_of(model, fgsm(model, images, labels, **statistics))
        before, after = logits_of(model, images), logits_of(model, results)
        tally.add(before.argmax(1), after.argmax(1), fast.argmax(1), labels, aims)
        for i in range(min(len(labels), n - len(shown))):
            first, second = (rgb(data.denormalize(batch[i])) for batch in (images, results))
            was, became = (most_likely(logits[i], classes) for logits in (before, after))
            shown.append(Attacked(first, second, classes[labels[i]], was, became, classes[aims[i]]))
    success = tally.reached / tally.attacked if tally.attacked else None
    title = f"{steps} targeted steps on {type(model).__name__}, epsilon {epsilon}"
    reached = f"{tally.reached} of {tally.attacked} images become the class aimed at ({targets})"
    subtitle = f"{reached}; the first {len(shown)} of the test set"
    factor = max(1, round(0.5 / size)) if size else 1  # the largest change becomes black or white
    run, path = place_of_figure(checkpoint, config, "attack.png", out)
    save_figure(attack_figure(shown, factor, title, subtitle, about=str(run or source)), path)
    return {
        "checkpoint": str(checkpoint),
        "targets": targets,
        "epsilon": size,
        "steps": steps,
        "images": tally.images,
        "accuracy": tally.right / tally.images,
        "fgsm_accuracy": tally.fgsm_right / tally.images,
        "attacked": tally.attacked,
        "targeted_success": success,
        "figure": str(path),
    }


@dataclass
class Tally:
    """Counts of images: all, classified rightly, rightly after FGSM; not taken for the target, and made to be so."""

    images: int = 0
    right: int = 0
    fgsm_right: int = 0
    attacked: int = 0
    reached: int = 0

    def add(self, before: Tensor, after: Tensor, fast: Tensor, labels: Tensor, aims: Tensor) -> None:
        """Adds a batch: predictions (B,) for the images, the targeted ones and those of FGSM; labels and targets."""
        other = before != aims  # an image that is taken for the target anyway would prove nothing
        self.images += len(labels)
        self.right += int((before == labels).sum())
        self.fgsm_right += int((fast == labels).sum())
        self.attacked += int(other.sum())
        self.reached += int((other & (after == aims)).sum())


def choose_targets(
    target: str | int, model: nn.Module, images: Tensor, labels: Tensor, num_classes: int, seed: int
) -> Tensor:
    """The class to aim at for each image (B,)."""
    if isinstance(target, int):
        return torch.full_like(labels, target)
    return random_others(labels, num_classes, seed) if target == RANDOM else least_likely(model, images)


def parse_epsilon(text: str) -> float:
    """A number or a fraction in 0..1.

    >>> parse_epsilon("51/255")
    0.2
    """
    try:
        value = float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError(f"epsilon is {text}: expected a number or fraction in 0..1, such as 8/255")
    return value


def parse_target(text: str, classes: list[str]) -> str | int:
    """A way to choose targets, or the number of a class given by name or number."""
    if text in (LEAST_LIKELY, RANDOM):
        return text
    if (number := class_number(text, classes)) is not None:
        return number
    known = [LEAST_LIKELY, RANDOM, *classes]
    hint = nearest_names(text, known, f"the classes are {', '.join(classes[:20])}")
    raise ValueError(
        f"targets is {text!r}: expected {LEAST_LIKELY}, {RANDOM}, or one of {len(classes)} classes; {hint}"
    )


def class_number(text: str, classes: list[str]) -> int | None:
    """The number of a class given by name or number; None if it is neither.

    >>> class_number("dog", ["cat", "dog"]), class_number("0", ["cat", "dog"]), class_number("2", ["cat", "dog"])
    (1, 0, None)
    """
    if text in classes:
        return classes.index(text)
    return int(text) if text.isdecimal() and int(text) < len(classes) else None


def load_classifier(checkpoint: Path) -> tuple[Classifier, dict[str, Any], torch.device]:
    """A trained classifier on the device that there is, the metadata of its data, and the device.

    Raises:
        ValueError: if the checkpoint holds another system.
    """
    model, metadata = load_module(checkpoint)
    if not isinstance(model, Classifier):
        raise ValueError(f"{checkpoint} holds a {type(model).__name__}: expected a classifier; see `zoo list`")
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    return model.to(device), metadata | {"classes": [str(name) for name in metadata["classes"]]}, device


def place_of_figure(checkpoint: Path, config: Path, name: str, out: str | Path | None) -> tuple[Path | None, Path]:
    """The run folder, None for a ready model, and where a figure goes: `out`, or among the pictures of the run."""
    run = None if is_ready(checkpoint) else config.parent
    return run, Path(out) if out is not None else Path(name) if run is None else run / "pictures" / name


def find_run(source: str) -> tuple[Path, Path]:
    """The checkpoint or ready model that a user means by a file, a run folder or a recipe, and its config.

    Raises:
        ValueError: if there is none, or the recipe is not one of a classifier.
    """
    is_file = recipes.run_of(source) is not None or source.endswith((".ckpt", SUFFIX))
    if not is_file and (shelf := recipes.shelf(source)) not in ("classification", "other"):
        module = recipes.read(recipes.find(source))["model"]["class_path"].rpartition(".")[2]
        raise ValueError(f"{source} trains a {module} ({shelf}): expected the recipe of a classifier; see `zoo list`")
    checkpoint = checkpoint_of(source)
    return checkpoint, config_of(checkpoint)


def normalized_batches(data: Any, limit: int | None, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """The test set as the network sees it, batch by batch, up to `limit` images."""
    data.prepare_data()
    data.setup("test")
    if "test" not in data.datasets:
        raise ValueError(f"{type(data).__name__} has no test set: expected one to attack")
    left = limit
    for batch in tqdm(data.test_dataloader(), desc="attack", leave=False, disable=None):
        images, labels = batch[0][:left], batch[1][:left]
        yield data.normalize(images.to(device).float() / 255), labels.to(device)
        if left is not None and (left := left - len(labels)) <= 0:
            return


def most_likely(logits: Tensor, classes: list[str]) -> tuple[str, float]:
    """The name of the most likely class, and its probability."""
    confidence, label = logits.softmax(0).max(0)
    return classes[int(label)], float(confidence)


def rgb(image: Tensor) -> np.ndarray:
    """(C, H, W) in 0..1 -> (H, W, 3)."""
    image = image if len(image) == 3 else image.mean(0, keepdim=True).expand(3, -1, -1)
    return image.permute(1, 2, 0).cpu().numpy()
