"""The sweeps of W&B start commands that the zoo takes; no server is asked."""

from pathlib import Path

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from zoo.command import recipes
from zoo.command.lightning_cli import ZooCLI
from zoo.command.main import make_parser

SWEEPS = sorted((recipes.ROOT / "sweeps").glob("*.yaml"))


def drawn(parameter: dict) -> list:
    """The values of a parameter at the ends of its range."""
    return parameter.get("values") or [parameter[key] for key in ("value", "min", "max") if key in parameter]


def words(sweep: dict, values: dict) -> list[str]:
    """The command that an agent starts for these values, as W&B makes it."""
    made = create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
    return [
        word
        for part in create_sweep_command(sweep["command"])
        for word in (made["args"] if part == "${args}" else [part])
    ]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
@pytest.mark.parametrize("end", [0, -1])
def test_an_agent_starts_a_command_that_trains_with_its_values(path, end, tmp_path, monkeypatch, fake_data):
    monkeypatch.chdir(tmp_path)
    sweep = yaml.safe_load(path.read_text())
    values = {name: drawn(parameter)[end] for name, parameter in sweep["parameters"].items()}
    program, *rest = words(sweep, values)
    assert program == "zoo"
    args, options = make_parser([word for word in rest if not word.startswith("-")]).parse_known_args(rest)
    assert (args.verb, args.recipe) == ("fit", recipes.name_of(recipes.find(args.recipe)))
    offline = [word.replace("wandb", "wandb-offline") if word == "wandb" else word for word in options]
    cli = ZooCLI(args.recipe, [*offline, "--data.data_dir", str(fake_data), "--data.val_size", "20"])
    settings = cli.settings
    assert settings["model"]["init_args"]["optimizer"]["init_args"]["lr"] == values["model.optimizer.lr"]
    assert settings["trainer"]["max_epochs"] == values["trainer.max_epochs"]
    assert settings["seed_everything"] == values["seed_everything"]
    split, _, name = sweep["metric"]["name"].partition("/")
    assert split == "val", "choices are made on validation"
    assert name in cli.model.axes
    assert Path(cli.folder).is_dir()
