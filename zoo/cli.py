"""The `zoo` command. Each verb is a few lines that call its room; heavy imports wait until one needs them."""

import argparse
import contextlib
import json
import logging
import os
import sys
import warnings
from typing import NoReturn

from experiments import ledger, recipes

OVERRIDES = "options of the recipe, such as --trainer.max_epochs 2 or --config FILE; see `zoo fit RECIPE --help`"

# What Lightning warns of in every run, with nothing for the user to do; the last is of frozen nets that judge others.
KNOWN_WARNINGS = (
    "LeafSpec",
    "`srun`",
    "does not have many workers",
    "tensorboardX",
    "Total length of `dict`",
    "The dirpath has changed",
    r"Found \d+ module\(s\) in eval mode",
)
# What it says in every run beside that: offers of other products, and its own steps.
KNOWN_REMARKS = ("💡 Tip", "Loading `train_dataloader`", "TPU available")


class Parser(argparse.ArgumentParser):
    """argparse whose errors are ours to print."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see `{self.prog} --help`")


def parser() -> Parser:
    top = Parser("zoo", description="Deep-learning systems, each with a recipe that reproduces its number.")
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)

    def add(name: str, text: str) -> Parser:
        return verbs.add_parser(name, help=text, description=text, allow_abbrev=False)

    add("demo", "train the flagship on Fashion-MNIST and draw curves, mistakes and Grad-CAM").epilog = OVERRIDES
    add("list", "the recipes with target and result").add_argument("--json", action="store_true")
    for verb, text in {
        "fit": "train a recipe",
        "validate": "evaluate on the validation split",
        "test": "evaluate on the test set",
    }.items():
        verb = verbs.add_parser(verb, help=text, description=text, epilog=OVERRIDES, add_help=False, allow_abbrev=False)
        verb.add_argument("recipe", metavar="RECIPE", help="name, or path of a YAML file")
    predict = add("predict", "classify image files, or draw the boxes found in them; one JSON line each")
    predict.add_argument("source", metavar="RECIPE_OR_CKPT", help="checkpoint, or recipe whose newest run counts")
    predict.add_argument("files", metavar="IMAGE", nargs="+")
    predict.add_argument("--out", default="predictions", help="folder of the pictures that a detector draws on")
    reproduce = add("reproduce", "train and test a recipe, compare with its target, write the ledger")
    reproduce.epilog = "Options of the recipe may follow, for a trial; then nothing is written into the ledger."
    reproduce.add_argument("recipe", metavar="RECIPE")
    reproduce.add_argument("--seeds", type=int, nargs="+", help="default: as many as the recipe expects")
    reproduce.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    schedule = add("schedule", "draw learning rate and momentum over a recipe's training, without training")
    schedule.epilog = OVERRIDES
    schedule.add_argument("recipe", metavar="RECIPE")
    schedule.add_argument("--out", default=".", help="folder of the picture")
    anchors = add("anchors", "anchor boxes of a detection data set by IoU k-means, with plots")
    anchors.add_argument("source", metavar="FILE_OR_FOLDER", help="VOC folder, COCO-schema or VGG-annotator file")
    anchors.add_argument("--k", type=int, nargs="+", default=[3, 4, 5, 6], help="how many anchors")
    anchors.add_argument("--out", default="anchors", help="folder of the plots and of anchors.json")
    generate = add("generate", "text from a language model, token by token")
    generate.add_argument("source", metavar="RECIPE_OR_CKPT", help="checkpoint, or recipe whose newest run counts")
    generate.add_argument("--prompt", default="\n")
    generate.add_argument("--tokens", type=int, default=500, help="how many")
    generate.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest token")
    generate.add_argument("--top_k", type=int, default=40, help="draw from the k likeliest tokens; 0 from all")
    generate.add_argument("--top_p", type=float, default=1.0, help="draw from the likeliest that hold this share")
    generate.add_argument("--seed", type=int, default=0)
    grow = add("grow", "animate a cellular automaton that was trained before")
    grow.add_argument("name", metavar="NAME", nargs="?", help="automaton or file; without it, the names are listed")
    grow.add_argument("--size", type=int, nargs="+", default=[128], help="pixels, one number or height and width")
    grow.add_argument("--steps", type=int, default=300)
    grow.add_argument("--seed", type=int, default=0)
    grow.add_argument("--out", default=".", help="folder of the animation")
    add("results", "write RESULTS.md, the README's table and the picture of the ladder from the ledger")
    return top


def show_list(as_json: bool) -> None:
    lines = []
    for name in recipes.names():
        content = recipes.read(recipes.find(name))
        line = ledger.summary(name)
        lines.append(
            {
                "recipe": name,
                "module": content["model"]["class_path"].rpartition(".")[2],
                "data": content["data"]["class_path"].rpartition(".")[2],
                "target": f"{line['metric']} {line['target']}",
                "result": line["result"] + (f" (n={line['n']})" if line["n"] else ""),
                "cost": line["cost"],
            }
        )
    if as_json:
        print(json.dumps(lines, indent=2))
        return
    widths = {key: max(len(key), *(len(line[key]) for line in lines)) for key in lines[0]}
    for line in [{key: key for key in widths}, *lines]:
        print("  ".join(line[key].ljust(width) for key, width in widths.items()).rstrip())


def run_trainer(verb: str, recipe: str, options: list[str]) -> None:
    from zoo.checkpoints import existing, newest_checkpoint
    from zoo.lightning_cli import ZooCLI

    cli = ZooCLI(recipe, options)
    checkpoint = cli.config_init.ckpt_path
    if checkpoint is None and verb != "fit":
        checkpoint = newest_checkpoint(recipe)
    if checkpoint is not None:
        existing(checkpoint)
        print(f"checkpoint {checkpoint}", file=sys.stderr)
    print(f"run folder {cli.folder}", file=sys.stderr)
    getattr(cli.trainer, verb)(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint)


def run_reproduce(recipe: str, seeds: list[int] | None, as_json: bool, options: list[str]) -> int:
    with contextlib.redirect_stdout(sys.stderr):
        from experiments.reproduce import reproduce

        report = reproduce(recipe, seeds, options)
    if as_json:
        print(json.dumps(report))
    else:
        values = ", ".join(f"{value:.4f}" for value in report["values"].values())
        verdict = "met" if report["met"] else "missed"
        print(
            f"{report['recipe']}: {report['metric']} {report['mean']:.4f} ({values}); {verdict}: {report['target']:g}"
        )
    return 0 if report["met"] else 1


def run(argv: list[str]) -> int:
    args, rest = parser().parse_known_args(argv)
    if rest and args.verb in ("list", "results", "predict", "anchors", "generate", "grow"):
        raise ValueError(f"zoo {args.verb} takes no {rest[0]!r}; see `zoo {args.verb} --help`")
    if args.verb == "list":
        show_list(args.json)
    elif args.verb == "demo":
        from experiments.demo import demo

        demo(rest)
    elif args.verb == "predict":
        from zoo.predict import predict

        for line in list(predict(args.source, args.files, args.out)):
            print(json.dumps(line))
    elif args.verb == "reproduce":
        return run_reproduce(args.recipe, args.seeds, args.json, rest)
    elif args.verb == "schedule":
        from zoo.schedule import schedule

        print(schedule(args.recipe, rest, args.out))
    elif args.verb == "anchors":
        from zoo.detection.anchors import report

        print(*report(args.source, args.k, args.out), sep="\n")
    elif args.verb == "generate":
        from zoo.generate import generate

        for piece in generate(
            args.source, args.prompt, args.tokens, args.temperature, args.top_k, args.top_p, args.seed
        ):
            print(piece, end="", flush=True)
        print()
    elif args.verb == "grow":
        from zoo.grow import grow

        print(*grow(args.name, args.size, args.steps, args.seed, args.out), sep="\n")
    elif args.verb == "results":
        from experiments import ladder

        print(*ledger.publish(), ladder.publish(), sep="\n")
    else:
        run_trainer(args.verb, args.recipe, rest)
    return 0


def _remarkable(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(KNOWN_REMARKS)


def complaint(error: Exception) -> str | None:
    """What to tell of an error that the user can do something about; None for one that nobody foresaw."""
    # Lightning says so of impossible Trainer options; its name is enough, importing it would take seconds.
    if isinstance(error, (ValueError, OSError)) or type(error).__name__ == "MisconfigurationException":
        return str(error)
    if isinstance(error, (MemoryError, RuntimeError)):
        from callbacks.out_of_memory import is_out_of_memory
        from zoo.analysis.memory import free_memory

        if is_out_of_memory(error):
            free_memory(error)
            return getattr(error, "__notes__", [f"out of memory: {error}"])[-1]
    return None


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status: 0, 1 (target missed), 2 (bad input or too little memory, in a line),
    130 (interrupted).
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # for classes of the user's own, named by dotted path; last, so that it hides nothing
    for known in KNOWN_WARNINGS:
        warnings.filterwarnings("ignore", message=f".*{known}")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_remarkable)
    try:
        return run([word for word in argv if word != "--debug"])
    except Exception as error:
        if debug or (line := complaint(error)) is None:
            raise
        print(f"zoo: {' '.join(line.split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # so Lightning ends after its own clean-up
            return 130
        raise
