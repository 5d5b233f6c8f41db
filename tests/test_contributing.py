"""The example of CONTRIBUTING.md works: two files, and the new system is listed, trained and under contract."""

import json
import os
import re
import shutil
import textwrap
from functools import partial
from pathlib import Path

import pytest

import processes

ROOT = Path(__file__).parents[1]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the project with the two files of the example, and nothing else changed."""
    for folder in ("zoo", "datamodules", "callbacks", "experiments", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = text[text.index("## A system in two files") : text.index("## A callback")]
    paths = re.findall(r"`((?:zoo/\S+\.py)|(?:experiments/\S+\.yaml))`\.\n", section)
    blocks = re.findall(r"```(?:python|yaml)\n(.*?)\n   ```", section, re.DOTALL)
    assert len(paths) == len(blocks) == 2
    for path, block in zip(paths, blocks, strict=True):
        (tmp_path / path).write_text(textwrap.dedent(f"   {block}" if block[0] != " " else block).lstrip(" ") + "\n")
    return tmp_path


COARSE = '''"""A net that fixes its input channels and leaves a map of 4x4 pixels, too small for Grad-CAM."""

from torch import nn

from zoo.classification.base import Classifier


class CoarseNet(nn.Module):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.stem, self.stages = nn.Conv2d(3, 8, 4, stride=4), nn.Sequential(nn.Conv2d(8, 16, 2, stride=2), nn.ReLU())
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(256, num_classes))

    def forward(self, x):
        return self.head(self.stages(self.stem(x)))


class Coarse(Classifier):
    def __init__(self, num_classes: int = 10, **task_options) -> None:
        super().__init__(CoarseNet(num_classes), num_classes, **task_options)
'''


def add_coarse(checkout: Path) -> None:
    """A second system: its recipe is that of another one with the class exchanged, galleries and all."""
    (checkout / "zoo" / "classification" / "coarse.py").write_text(COARSE)
    recipe = (checkout / "experiments" / "cifar10" / "resnet18.yaml").read_text()
    changed = recipe.replace("zoo.classification.resnet.ResNet18", "zoo.classification.coarse.Coarse")
    assert changed != recipe
    (checkout / "experiments" / "cifar10" / "coarse.yaml").write_text(changed)


def test_a_system_takes_two_files(checkout, monkeypatch):
    add_coarse(checkout)
    monkeypatch.chdir(checkout)
    python = partial(processes.run, "-m", PYTHONPATH=os.pathsep.join(map(str, (checkout, checkout / "tests"))))
    listed = json.loads(python("zoo", "list", "--json"))
    assert {"recipe": "digits/my-net", "module": "MyNet"}.items() <= {
        key: value for line in listed if line["module"] == "MyNet" for key, value in line.items()
    }.items()
    selected = "MyNet or my-net or Coarse or coarse or is_too_full or circle"
    suites = ("tests/contract", "tests/zoo/command/test_recipes.py", "tests/test_imports.py")
    report = python("pytest", "-p", "no:cacheprovider", "-k", selected, *suites)
    passed = int(re.search(r"(\d+) passed", report)[1])
    assert passed > 24, report
    reproduced = python("zoo", "reproduce", "digits/my-net", "--json", "--trainer.max_epochs", "5")
    assert json.loads(next(line for line in reproduced.splitlines() if line.startswith("{")))["met"]
