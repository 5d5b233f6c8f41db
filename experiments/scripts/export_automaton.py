"""Export a trained cellular automaton, so that `zoo grow NAME` finds it.

    python experiments/scripts/export_automaton.py CHECKPOINT NAME TEXTURE

The checkpoint is in its run folder: with the config.yaml of that folder the automaton is tested again, and the results
become part of its metadata.
"""

import argparse
from pathlib import Path

import torch

from zoo.command.actions.grow import AUTOMATA, save_automaton
from zoo.command.lightning_cli import ZooCLI


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a .ckpt file in its run folder")
    parser.add_argument("name", type=str, metavar="NAME", help="name of the automaton")
    parser.add_argument("texture", type=str, metavar="TEXTURE", help="a few words about the image")
    parser.add_argument("--folder", type=Path, default=AUTOMATA, help="where NAME.safetensors is written")
    args = parser.parse_args()
    folder = args.checkpoint.absolute().parents[1]
    cli = ZooCLI(str(folder / "config.yaml"), ["--trainer.logger=false", f"--trainer.default_root_dir={folder}"])
    (found,) = cli.trainer.test(cli.model, cli.datamodule, ckpt_path=args.checkpoint, verbose=False)
    metadata = {
        "texture": args.texture,
        "picture": cli.datamodule.content.name,
        "recipe": "/".join(folder.parts[-3:-1]),
        "steps": str(torch.load(args.checkpoint, weights_only=True)["global_step"]),
        "features": f"{cli.model.hparams.backbone}, {Path(str(cli.model.hparams.weights)).name}",
        "style_loss": f"{found['test/loss']:.3f}",
        "style_drop": f"{found['test/style_drop']:.2f}",
        "stability": f"{found['test/stability']:.2f}",
        "licence": "MIT",
    }
    print(save_automaton(cli.model.net, args.folder / f"{args.name}.safetensors", metadata))


if __name__ == "__main__":
    main()
