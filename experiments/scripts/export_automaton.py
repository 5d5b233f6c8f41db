"""Puts a trained automaton on the shelf of `zoo grow`: python experiments/scripts/export_automaton.py CKPT NAME TEXTURE

The checkpoint is one in its run folder: by the config.yaml there it is tested once more, and what is found goes into
the card. NAME becomes `zoo/generation/automata/NAME.safetensors`; TEXTURE is a line about the picture.
"""

import sys
from pathlib import Path

import torch

from zoo.command.lightning_cli import ZooCLI
from zoo.command.verbs.grow import SHELF, save

if __name__ == "__main__":
    checkpoint, name, texture = sys.argv[1:]
    folder = Path(checkpoint).absolute().parents[1]
    cli = ZooCLI(str(folder / "config.yaml"), ["--trainer.logger", "false", "--trainer.default_root_dir", str(folder)])
    (found,) = cli.trainer.test(cli.model, cli.datamodule, ckpt_path=checkpoint, verbose=False)
    card = {
        "texture": texture,
        "picture": cli.datamodule.content.name,
        "recipe": "/".join(folder.parts[-3:-1]),
        "steps": str(torch.load(checkpoint, weights_only=True)["global_step"]),
        "features": f"{cli.model.hparams.backbone}, {Path(str(cli.model.hparams.weights)).name}",
        "style_loss": f"{found['test/loss']:.3f}",
        "style_drop": f"{found['test/style_drop']:.2f}",
        "stability": f"{found['test/stability']:.2f}",
        "licence": "MIT",
    }
    print(save(cli.model.net, SHELF / f"{name}.safetensors", card))
