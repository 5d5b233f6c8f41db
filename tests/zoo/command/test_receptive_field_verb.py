"""`zoo receptive-field` prints and draws the fields of a recipe's net or of any class."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor, nn

from callbacks.figures.receptive_field import MAX_OUTLINES, Field, field_figure
from helpers import draw_picture
from zoo.analysis.receptive_field import receptive_field
from zoo.classification.resnet_mini import ResNetMini
from zoo.command.actions.receptive_field import build, nearest_unit, net_of
from zoo.command.main import main


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_gate.py").write_text(
        "from torch import nn\n\n\n"
        "class Gate(nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x if x.mean() > 0 else -x\n\n\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self):\n"
        "        super().__init__(nn.Conv2d(3, 4, 3), Gate(), nn.GroupNorm(1, 4), nn.Conv2d(4, 4, 3))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_gate", raising=False)  # of another test's folder
    return tmp_path


def table_of(capfd, *words: str) -> dict[str, list[str]]:
    """Runs the command; layer -> its numbers, and what follows them."""
    capfd.readouterr()
    assert main(["receptive-field", *words]) == 0
    head, *rows, figure = capfd.readouterr().out.splitlines()
    assert head.split() == ["layer", "kernel", "stride", "dilation", "padding", "jump", "field", "out"]
    assert Image.open(figure).size[0] > 1000
    return {name: numbers for name, *numbers in map(str.split, rows)}


def test_a_class_with_arguments_and_an_image(capfd):
    draw_picture(0, (90, 60)).save("own.png")
    words = ["zoo.classification.resnet.ResNet18", "--input", "1x28x36", "--image", "own.png"]
    rows = table_of(capfd, *words, "--out", "new/figure.png")
    assert rows["stem.0"] == ["3", "1", "1", "1", "1", "3", "28x36"]
    assert rows["stages.3.1.branch.1.0"] == ["3", "1", "1", "1", "8", "109", "4x5"]
    assert not [name for name in rows if name.endswith("relu")], "activations leave the field as it is"
    assert main(["receptive-field", *words, "--in_channels", "3"]) == 2, "what is given is kept"
    complete = table_of(capfd, *words, "--all")
    assert complete.keys() > rows.keys()
    assert "stages.0.0.relu" in complete


def test_a_recipe_brings_its_sizes_and_an_image(capfd):
    capfd.readouterr()
    assert main(["receptive-field", "digits/small", "--json"]) == 0
    layers = json.loads(capfd.readouterr().out)
    net, _ = build(
        "zoo.classification.resnet_mini.ResNetMini", ["--in_channels=1", "--strides=[1,1,2]", "--stem_pool=false"]
    )
    own = receptive_field(net, (1, 8, 8))
    assert [(layer["name"], tuple(layer["field"]), tuple(layer["out"])) for layer in layers] == [
        (layer.name, layer.field, layer.out) for layer in own
    ]
    assert layers[0]["box"] == [3, 3, 6, 6]
    assert [path.name for path in Path().iterdir() if path.is_file()] == ["my_gate.py", "receptive-field.png"]


def test_leaves_and_pointwise_modules(capfd):
    words = ["my_gate.Net", "--input", "3x12x12", "--leaf", "my_gate.Gate"]
    assert table_of(capfd, *words)["3"][5] == "12"
    words = ["my_gate.Net", "--input", "3x12x12", "--pointwise", "my_gate.Gate", "torch.nn.GroupNorm"]
    assert table_of(capfd, *words)["3"][5] == "5"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["my_gate.Net", "--input", "3x12x12"], ["my_gate.py:6", "`return x if x.mean() > 0 else -x`", "as a leaf"]),
        (["my_gate.Net", "--input", "1x12x12"], ["1x12x12", "conv2d in 0", "give another size"]),
        (["torchvision.models.alexnet", "--input", "3x32x32"], ["AlexNet", "3x32x32", "features.12", "too small"]),
        (["my_gate.Net", "--input", "12"], ["--input is 12", "such as 3x224x224"]),
        (["my_gate.Net", "--input", "3x0x12"], ["(3, 0, 12)", "1 or more"]),
        (["my_gate.Net"], ["my_gate.Net", "give --input"]),
        (["my_gate.Nett", "--input", "3x8x8"], ["my_gate.Nett", "nearest: Net"]),
        (["my_gatte.Net", "--input", "3x8x8"], ["my_gatte.Net", "dotted path"]),
        (["my_gate.nn", "--input", "3x8x8"], ["my_gate.nn", "module"]),
        (["torch.nn.Conv2d", "--input", "3x8x8"], ["torch.nn.Conv2d", "'kernel_size'", "options"]),
        (["torch.nn.ReLU", "--input", "3x8x8", "--layer", "conv"], ["'conv'", "relu"]),
        (["torch.nn.ReLU", "--input", "3x8x8", "--image", "a.png"], ["a.png", "does not exist"]),
        (["torch.nn.ReLU", "--input", "3x8x8", "--inplace"], ["'--inplace'", "no value"]),
        (["digits/smal"], ["nearest: digits/small"]),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(capfd, here, words, parts):
    before = set(here.glob("*.png"))
    assert main(["receptive-field", *words]) == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("zoo: ")]
    assert all(part in line for part in parts), line
    assert set(here.glob("*.png")) == before


class TestFigure:
    def test_the_field_is_bright_and_earlier_ones_are_outlined(self):
        fields = [Field(f"layer{i}", (i, i), (20 - i, 20 - i, 20, 20)) for i in range(1, 20)]
        figure = field_figure(np.zeros((32, 32, 3)), fields, 15, "title", "subtitle")
        boxes = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle) and not patch.get_fill()]
        assert len(boxes) == MAX_OUTLINES + 1
        assert boxes[-1].get_bbox().bounds == (4, 4, 16, 16)
        assert all(box.get_width() < 16 for box in boxes[:-1])

    def test_a_field_beyond_the_image_and_none(self):
        fields = [
            Field("conv", (3, 5), (2, 3, 7, 6)),
            Field("wide", (70, 60), (-26, -31, 34, 39)),
            Field("none", (0, 0), None),
        ]
        for chosen in range(3):
            figure = field_figure(np.zeros((8, 8, 3)), fields, chosen, "title", "")
            left, right = figure.axes[0].get_xlim()
            assert left >= -9
            assert right <= 17
            assert (left, right) == (0, 8) or chosen == 1

    def test_outlines_belong_to_units_in_the_same_place(self):
        net = nn.Sequential(nn.Conv2d(1, 1, 3, stride=2), nn.Conv2d(1, 1, 3, stride=2))
        first, last = receptive_field(net, (1, 63, 63))
        box = last.box(7, 7)
        middle = ((box[1] + box[3]) / 2, (box[0] + box[2]) / 2)
        x0, y0, x1, y1 = first.box(*nearest_unit(first, middle))
        assert ((y0 + y1) / 2, (x0 + x1) / 2) == middle


def test_a_lightning_module_stands_for_its_net_and_another_module_for_itself():
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    other, ours = Other(), ResNetMini()
    assert net_of(other) is other
    assert net_of(ours) is ours.net
