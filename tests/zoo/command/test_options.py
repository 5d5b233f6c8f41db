"""Files that come with the zoo are found by name from any folder, and a recipe's help fits on a page."""

import os
import re
import subprocess
import sys
from itertools import chain

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zoo.command import recipes
from zoo.command.main import main
from zoo.command.options import COMMON, by_name, short_help, split, wants_short_help, without_all

LOGGER, OVERLAY = recipes.ROOT / "loggers" / "wandb-offline.yaml", recipes.ROOT / "_smoke.yaml"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--trainer.logger", "wandb-offline"], ["--trainer.logger", str(LOGGER)]),
        (["--trainer.logger=wandb-offline"], [f"--trainer.logger={LOGGER}"]),
        (["--trainer.logger", "experiments/loggers/wandb-offline.yaml"], ["--trainer.logger", str(LOGGER)]),
        (["--config", "_smoke", "-c", "_smoke"], ["--config", str(OVERLAY), "-c", str(OVERLAY)]),
        (["--config=experiments/_smoke.yaml"], [f"--config={OVERLAY}"]),
    ],
)
def test_files_of_the_zoo_are_found_from_any_folder(words, found):
    assert by_name(words) == found


@pytest.mark.parametrize(
    "words",
    [
        ["--trainer.logger", "false"],
        ["--trainer.logger", "lightning.pytorch.loggers.CSVLogger"],
        ["--config", "absent.yaml"],
        ["--model.name", "wandb-offline"],
        ["--trainer.logger"],
    ],
)
def test_everything_else_stays_as_it_is(words):
    assert by_name(words) == words


def test_a_file_of_ones_own_comes_before_one_of_the_zoo(here):
    (here / "_smoke").write_text("trainer: {max_epochs: 1}")
    assert by_name(["--config", "_smoke"]) == ["--config", "_smoke"]


@pytest.mark.parametrize("verb", ["fit", "test", "validate"])
def test_the_help_of_a_recipe_is_short_and_shows_its_values(verb, capsys):
    assert main([verb, "fashion_mnist/flagship", "--help"]) == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) < 60
    assert f"zoo {verb} fashion_mnist/flagship" in shown
    values = dict(re.findall(r"^  (--\S+) +(\S.*)$", shown, re.MULTILINE))
    recipe = recipes.read(recipes.find("fashion_mnist/flagship"))
    assert values["--trainer.max_epochs"] == str(recipe["trainer"]["max_epochs"])
    assert values["--model"] == recipe["model"]["class_path"]
    assert values["--model.optimizer.lr"] == str(recipe["model"]["init_args"]["optimizer"]["init_args"]["lr"])
    assert "--trainer.callbacks+=CLASS" in values, "an option that adds to a setting of the recipe"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pairs=st.lists(st.tuples(st.sampled_from(["--model.lr", "--config", "--x"]), st.sampled_from([None, "1", "-2"]))),
    place=st.integers(0, 9),
)
def test_options_of_a_recipe_may_stand_anywhere_and_keep_their_values(pairs, place):
    words = [[option] if value is None else [option, value] for option, value in pairs]
    whole = ["fit", *chain(*words[:place]), "--own", "3", *chain(*words[place:])]
    assert split(whole, own={"--own"}) == (["fit", "--own", "3"], [*chain(*words)])


def test_a_trial_of_all_that_the_ledger_lacks_is_not_taken_for_a_recipe(capfd):
    command = ["reproduce", "--missing", "--cost", "gpu", "--minutes", "0", "--config", "_smoke"]
    assert main(command) == 0, "nothing fits into no time"
    assert "cifar10/airbench-94" in capfd.readouterr().err


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_has_a_help_and_each_option_is_there_once(name):
    options = re.findall(r"^  (--[^ =]+)", short_help("fit", name).replace("+=", "+ "), re.MULTILINE)
    assert len(options) == len({*options})
    assert len(options) >= len(COMMON)


def test_all_options_are_shown_on_request(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", "digits/small", "--help", "all"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "--trainer.reload_dataloaders_every_n_epochs" in shown
    assert not wants_short_help(["--help", "all"])
    assert without_all(["--model.x", "all", "-h", "all"]) == ["--model.x", "all", "-h"]


@pytest.mark.parametrize(
    ("name", "option"), [("own/pictures", "folder"), ("own/boxes", "folder"), ("own/text", "file")]
)
def test_the_example_of_a_recipe_for_own_data_names_them(name, option):
    assert f"Example: zoo fit {name} --data.{option} " in short_help("fit", name)


def test_without_words_the_command_shows_its_verbs(capsys):
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 0
    assert re.search(r"^ +fit +Train", capsys.readouterr().out, re.MULTILINE)


def test_the_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert re.fullmatch(r"litzoo \d+\.\d+\.\d+\n", capsys.readouterr().out)


def completed(line: str, tmp_path) -> set[str]:
    """What the shell would offer at the end of a line."""
    answer = tmp_path / "answer"
    ask = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "_ARGCOMPLETE_IFS": "\n"}
    ask |= {"COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_SUPPRESS_SPACE": "1"}
    code = "import sys, zoo.command.main as c; c.main()"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | ask, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {*answer.read_text().split("\n")}


def test_the_shell_completes_verbs_recipes_and_the_options_of_a_recipe(tmp_path):
    assert {"report", "reproduce"} <= completed("zoo rep", tmp_path)
    assert {"mnist/under-8k", "mnist/under-20k"} == completed("zoo fit mnist/und", tmp_path)
    assert completed("zoo fit digits/small --trainer.max", tmp_path) == {"--trainer.max_epochs"}
    assert completed("zoo predict digits/sm", tmp_path) == {"digits/small"}
    assert completed("zoo generate language/gpt-char-cpu --te", tmp_path) == {"--temperature"}
