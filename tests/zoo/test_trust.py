"""Nothing that a file names is imported or run unless it is the zoo's, torch's or trusted by the user."""

import copy
import random
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from zoo import trust
from zoo.classification.plain_conv import PlainConv
from zoo.command import recipes
from zoo.command.lightning_cli import nameable
from zoo.command.main import main

ROOT = Path(trust.__file__).parents[1]
QUICK = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.accelerator", "cpu"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict:
    """The checkpoint of a short training of fashion_mnist's plain net on the digits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("trained"))
        assert main(["fit", "digits/small", *QUICK, *PLAIN]) == 0
        (path,) = Path("runs").rglob("last.ckpt")
        return torch.load(path, weights_only=True)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working directory with a module that leaves a trace when it is imported, and a digit to classify."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trust, "own", set())
    (tmp_path / "evil_module.py").write_text(
        "from pathlib import Path\nfrom torch import nn\nPath('imported').touch()\n"
        "from zoo.classification.plain_conv import PlainConv\n"
        "class Act(nn.ReLU): pass\nclass Mine(PlainConv): pass\n"
        "def system(command='touch ran'):\n    Path('ran').touch()\n    return nn.ReLU()\n"
    )
    Image.new("L", (8, 8)).save(tmp_path / "digit.png")
    return tmp_path


def traces(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name in ("imported", "ran"))


COMMAND = {"class_path": "os.system", "init_args": {"command": "touch ran"}}
INSIDE = COMMAND | {"class_path": "torch.nn.parallel.distributed.os.system"}
PLAIN = ["--model", "zoo.classification.plain_conv.PlainConv"]
EVIL = {
    "class": {"act": COMMAND},
    "initialization": {"init": COMMAND},
    "norm": {"norm": {"class_path": "evil_module.system"}},
    "by its name": {"act": "evil_module.Act"},
    "function by its name": {"init": "evil_module.system"},
    "inside a trusted module": {"act": INSIDE},
    "of the command": {"act": {"class_path": "zoo.command.main.main", "init_args": {"argv": ["list"]}}},
    "partial": {"act": {"class_path": "functools.partial", "init_args": {"func": "os.system"}}},
    "nested": {"act": {"class_path": "torch.nn.Sequential", "init_args": {"args": [COMMAND]}}},
    "a download": {"act": {"class_path": "torchvision.models.resnet18", "init_args": {"weights": "DEFAULT"}}},
    "a model of text": {
        "act": {"class_path": "torchmetrics.text.bert.BERTScore", "init_args": {"model_name_or_path": "x"}}
    },
    "a model of images": {"act": {"class_path": "torchmetrics.functional.image.lpips._LPIPS"}},
    "another model": {"act": {"class_path": "zoo.load", "init_args": {"source": "digits/small"}}},
    "several processes": {"act": {"class_path": "torch.nn.parallel.DistributedDataParallel"}},
    "trust itself": {"act": {"class_path": "zoo.trust.trust", "init_args": {"names": ["os"]}}},
}


@pytest.mark.parametrize("changes", EVIL.values(), ids=EVIL)
def test_a_checkpoint_runs_nothing(trained, here, capfd, changes):
    checkpoint = copy.deepcopy(trained)
    checkpoint["hyper_parameters"] |= changes
    torch.save(checkpoint, "evil.ckpt")
    status = main(["predict", "evil.ckpt", "digit.png"])
    assert traces(here) == []
    lines = capfd.readouterr().err.strip().splitlines()
    assert status == 2, lines
    assert len(lines) == 1
    assert lines[0].startswith("zoo: evil.ckpt ")


@pytest.mark.parametrize("name", sorted(trust.NEVER))
def test_trust_is_not_advised_where_it_would_not_help(trained, here, capfd, name):
    checkpoint = copy.deepcopy(trained)
    checkpoint["hyper_parameters"]["act"] = f"{name}.x"
    torch.save(checkpoint, "evil.ckpt")
    for words in (["predict", "evil.ckpt", "digit.png"], ["--trust", "zoo", "predict", "evil.ckpt", "digit.png"]):
        assert main(words) == 2
        line = capfd.readouterr().err
        assert f"names {name}.x, which runs things" in line
        assert "--trust" not in line


@pytest.mark.parametrize("act", ["torch.nn.GELU", "zoo.parts.activations.GeneralReLU"])
def test_a_checkpoint_names_activations(trained, here, act):
    checkpoint = copy.deepcopy(trained)
    checkpoint["hyper_parameters"]["act"] = act
    torch.save(checkpoint, "good.ckpt")
    assert PlainConv.load_from_checkpoint("good.ckpt")


def test_what_the_recipes_train_may_be_loaded_again():
    inside = tuple(f"{part}." for part in trust.PARTS)
    for name in recipes.names():
        named = trust.names_in(recipes.read(recipes.find(name))["model"])
        assert [one for one in named if one.startswith(("zoo.", "torch")) and not one.startswith(inside)] == [], name


def test_in_python_a_checkpoint_runs_nothing_either(trained, here):
    checkpoint = copy.deepcopy(trained)
    checkpoint["hyper_parameters"]["act"] = COMMAND
    torch.save(checkpoint, "evil.ckpt")
    with pytest.raises(ValueError, match=r"os\.system"):
        PlainConv.load_from_checkpoint("evil.ckpt")
    assert traces(here) == []


def test_the_class_of_the_module_is_not_imported_unless_it_is_the_zoos(trained, here, capfd):
    checkpoint = trained | {"module": "evil_module.Mine"}
    checkpoint["hyper_parameters"] = trained["hyper_parameters"] | {"_class_path": "evil_module.Mine"}
    torch.save(checkpoint, "evil.ckpt")
    assert main(["predict", "evil.ckpt", "digit.png"]) == 2
    assert traces(here) == []
    assert "--trust evil_module" in capfd.readouterr().err
    assert main(["predict", "evil.ckpt", "digit.png", "--trust", "evil_module"]) == 0
    assert traces(here) == ["imported"]


def test_a_part_of_the_users_own_is_loaded_once_it_is_trusted(trained, here, capfd):
    checkpoint = copy.deepcopy(trained)
    checkpoint["hyper_parameters"]["act"] = {"class_path": "evil_module.Act"}
    torch.save(checkpoint, "mine.ckpt")
    assert main(["predict", "mine.ckpt", "digit.png"]) == 2
    assert "--trust evil_module" in capfd.readouterr().err
    assert main(["--trust=evil_module", "predict", "mine.ckpt", "digit.png"]) == 0


def recipe(folder: Path, **model: object) -> Path:
    content = yaml.safe_load((ROOT / "experiments/digits/small.yaml").read_text())
    content["model"] = {"class_path": "zoo.classification.plain_conv.PlainConv", "init_args": model}
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    "model", [{"schedule": {"class_path": "evil_module.system"}}, {"act": "evil_module.Act"}, {"schedule": COMMAND}]
)
def test_a_recipe_from_elsewhere_names_nothing_foreign_until_it_is_trusted(here, capfd, model):
    assert main(["fit", str(recipe(here, **model)), *QUICK]) == 2
    assert traces(here) == []
    assert "--trust" in capfd.readouterr().err


HIDDEN = {"norm": {"class_path": "torch.nn.BatchNorm2d", "init_args": {"zzz": "class_path 'evil_module.Act'"}}}


def test_the_message_on_a_recipe_from_elsewhere_imports_nothing(here, capfd):
    assert main(["schedule", str(recipe(here, **HIDDEN))]) == 2
    assert traces(here) == []
    assert "zoo: torch.nn.BatchNorm2d takes no 'zzz'" in capfd.readouterr().err


@pytest.mark.parametrize(
    "typed",
    [
        ["--trainer.default_root_dir", "out/evil_module.Act-run"],
        ["--trainer.default_root_dir=evil_module.Act"],
        ["--data.data_dir", "evil_module.Act"],
        ["--data.data_dir", "evil_module"],
    ],
    ids="".join,
)
@pytest.mark.parametrize("act", ["evil_module.Act", "{class_path: evil_module.Act}"])
def test_a_path_that_holds_the_name_is_no_trust(here, capfd, typed, act):
    assert main(["fit", str(recipe(here, act=act)), *QUICK, *typed]) == 2
    assert traces(here) == []
    assert "--trust evil_module" in capfd.readouterr().err


def test_typed_values_of_any_length_and_syntax_are_read():
    path = recipes.find("digits/small")
    words = [
        "--a",
        "[{class_path: my.Act}]",
        "--b=your.Act",
        "--c",
        "[" + "x" * 500,
        "--d=2026-13-01",
        "--e",
        "x/my.Path/y",
    ]
    assert {"my.Act", "your.Act"} <= nameable(path, words)
    assert "my.Path" not in nameable(path, words)


def test_a_trusted_recipe_and_a_class_typed_on_the_command_line_are_used(here, capfd):
    path = recipe(here, act={"class_path": "evil_module.Act"})
    assert main(["fit", str(path), *QUICK, "--trust", "evil_module"]) == 0
    trust.own.clear()
    assert main(["fit", "digits/small", *QUICK, *PLAIN, "--model.act", "evil_module.Act"]) == 0
    path.write_text(path.read_text().replace(PLAIN[1], "evil_module.Mine").replace("evil_module.Act", "torch.nn.ReLU"))
    assert main(["fit", str(path), *QUICK]) == 2
    assert main(["fit", str(path), *QUICK, "--model", "evil_module.Mine"]) == 0, "typed where only a class can be meant"


def test_a_flipped_bit_anywhere_in_the_tensors_of_a_checkpoint_is_found(trained, here, capfd):
    torch.save(trained, "whole.ckpt")
    whole = Path("whole.ckpt").read_bytes()
    values = next(iter(trained["state_dict"].values())).numpy().tobytes()
    start = whole.index(values)
    draw = random.Random(0)
    for _ in range(3):
        at = start + draw.randrange(len(values))
        flipped = bytearray(whole)
        flipped[at] ^= 1 << draw.randrange(8)
        Path("flipped.ckpt").write_bytes(flipped)
        assert main(["predict", "flipped.ckpt", "digit.png"]) == 2
        assert "damaged" in capfd.readouterr().err
    assert main(["predict", "whole.ckpt", "digit.png"]) == 0


def test_a_name_that_is_none_is_refused(capfd):
    assert main(["list", "--trust", "no name"]) == 2
    assert "'no name'" in capfd.readouterr().err
    assert main(["list", "--trust"]) == 2
