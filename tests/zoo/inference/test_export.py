"""An exported program gives what the module gives, in sizes that it was not traced in; what it prints can be run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.captions.base import word_tokenizer
from datamodules.text.sentence_pairs import SPECIAL_TOKENS
from datamodules.text.tokenizers import train_tokenizer
from helpers import draw_picture
from zoo.classification.plain_conv import PlainConv
from zoo.classification.vit import ViT
from zoo.command.main import main
from zoo.detection.yolo import YOLO
from zoo.generation.image_optimization import ImageOptimization
from zoo.generation.texture_nca import TextureNCA
from zoo.inference.export import ABOUT, TOLERANCE, export
from zoo.inference.plans import Logits, plan
from zoo.inference.preprocess import preprocesses
from zoo.language.bert import BERT
from zoo.language.gpt import GPT
from zoo.multimodal.clip import CLIP

WORDS = "to be or not to be that is the question"
COLOR = {"image_shape": [3, 16, 24], "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25], "classes": ["a", "b", "c"]}
GRAY = {"image_shape": [1, 28, 28], "mean": [0.3], "std": [0.4], "classes": [*"0123456789"]}


def text(special: tuple[str, ...] = ()) -> dict[str, Any]:
    tokenizer = train_tokenizer(WORDS, "bpe", 300)
    tokenizer.add_special_tokens(list(special))
    return {"tokenizer": tokenizer.to_str(), "context": 16}


def make(name: str) -> tuple[Any, dict[str, Any]]:
    """A small untrained module of each kind, and what its checkpoint would say of its data."""
    torch.manual_seed(0)
    sentences = word_tokenizer([WORDS])
    modules = {
        "views": lambda: (PlainConv(10, 1, flip_tta=True, shift_tta=1, tta_below=0.5), GRAY),
        "detector": lambda: (YOLO(3, [[0.2, 0.2], [0.4, 0.4]], widths=(4, 4), depth=1, passthrough=4), COLOR),
        "gpt": lambda: (GPT(300, context=16, num_layers=1, num_heads=2, dim=8), text()),
        "bert": lambda: (BERT(304, context=16, num_layers=1, num_heads=2, dim=8), text(SPECIAL_TOKENS)),
        "clip": lambda: (
            CLIP(sentences.get_vocab_size(), 8, widths=(4, 4), text_width=8, text_depth=1, text_heads=2),
            COLOR | {"tokenizer": sentences.to_str()},
        ),
        "automaton": lambda: (TextureNCA(grid=8, pool_size=4), {"image_shape": [3, 8, 8]}),
        "vit": lambda: (ViT(3, image_size=16, patch_size=8, dim=8, num_layers=1, num_heads=2),
                        COLOR | {"image_shape": [3, 16, 16]}),
    }  # fmt: skip
    module, data = modules[name]()
    if name == "views":  # half of the images get them
        module.tta_below = float(module.net(torch.randn(99, 1, 28, 28)).softmax(1).amax(1).median())
    if name == "automaton":
        torch.nn.init.normal_(module.net.brain[-1].weight)
    return module.eval(), data


FREE = {
    "views": ("batch",),
    "detector": ("batch", "height", "width"),
    "gpt": ("batch",),
    "bert": ("batch", "tokens"),
    "clip": ("batch", "height", "width", "sentences", "words"),
    "automaton": ("batch", "height", "width"),
    "vit": ("batch",),
}
ONNX = ("detector", "automaton")  # the others as programs of torch, which take less time


@pytest.mark.parametrize("name", FREE)
def test_a_program_equals_its_module_and_what_it_prints_can_be_run(name, tmp_path, monkeypatch, capsys):
    if name in ONNX:
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    module, data = make(name)
    written = plan(module, data)
    kind, suffix = ("onnx", "onnx") if name in ONNX else ("torch", "pt2")
    exported = export(written, Path(f"it.{suffix}"), kind, {"recipe": name})
    assert set(exported.free) >= set(FREE[name])
    assert exported.difference is not None
    assert exported.difference <= TOLERANCE
    draw_picture(0, (50, 40)).save("IMAGE", "PNG")
    found: dict[str, Any] = {}
    exec(compile(exported.usage, "usage", "exec"), found)  # as a user would run it
    inputs = [torch.from_numpy(found[each]) for each in written.sizes]
    with torch.inference_mode():
        expected = written.graph(*inputs)
    expected = [expected] if isinstance(expected, torch.Tensor) else expected
    for each, wanted in zip(written.outputs, expected, strict=True):
        torch.testing.assert_close(torch.as_tensor(found[each]), wanted, atol=1e-4, rtol=1e-4)
    assert capsys.readouterr().out
    assert "zoo" not in exported.usage
    if name in ("detector", "clip"):  # the lines prepare an image as the module's own preprocessing does
        prepared = preprocesses(data)["images"](Image.open("IMAGE"))
        torch.testing.assert_close(inputs[0], prepared, atol=1e-5, rtol=1e-5)


def test_views_of_some_images_are_those_of_the_module():
    """Some images are unsure enough for further views, and others are not."""
    module, data = make("views")
    images = torch.randn(64, *data["image_shape"])
    with torch.inference_mode():
        found = Logits(module)(images)
        expected, once = module(images), module.net(images)
        unsure = once.softmax(1).amax(1) < module.tta_below
    assert 0 < unsure.sum() < 64
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(found[~unsure], once[~unsure])


def test_a_file_says_what_it_needs(tmp_path):
    module, data = make("gpt")
    exported = export(plan(module, data), tmp_path / "new" / "it.pt2", "torch", {"recipe": "mine", "license": ""})
    torch.export.load(exported.path, extra_files=(extra := {ABOUT: ""}))
    about = json.loads(extra[ABOUT])
    assert about["recipe"] == "mine"
    assert about["tokenizer"] == data["tokenizer"]
    assert about["context"] == "2 to 16 tokens"
    assert "(B, T)" in about["preprocessing"]
    assert about["outputs"].keys() == {"logits"}
    assert "license" not in about
    assert [path.name for path in exported.path.parent.iterdir()] == ["it.pt2"]


def test_what_is_no_program_is_refused_in_one_line(tmp_path):
    with pytest.raises(ValueError, match="ImageOptimization is not a program of its own"):
        plan(ImageOptimization(), {"image_shape": [3, 8, 8]})
    with pytest.raises(ValueError, match="format is tflite: expected one of onnx, torch"):
        export(plan(*make("gpt")), tmp_path / "a", "tflite", {})

    class Chooser(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return input_ids.nonzero() if input_ids.sum() > 3 else input_ids[:1]

    chooser = plan(*make("gpt"))
    chooser.graph = Chooser()
    with pytest.raises(ValueError, match="cannot follow this module") as error:
        export(chooser, tmp_path / "a.pt2", "torch", {})
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_program_that_differs_is_not_written(tmp_path, monkeypatch):
    written = plan(*make("gpt"))
    monkeypatch.setattr("zoo.inference.export.torch_program", lambda content: lambda ids: [written.graph(ids) + 1e-3])
    with pytest.raises(ValueError, match=r"differs from the module by 1\.0e-03"):
        export(written, tmp_path / "a.pt2", "torch", {})
    assert not list(tmp_path.iterdir())


def test_the_command_exports_a_ready_model(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "digits/small@ready", "--format", "torch"]) == 0
    printed = capfd.readouterr()
    assert printed.err.splitlines()[-1].startswith("small.pt2  ")
    assert "free: batch, height, width" in printed.err
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("IMAGE", "PNG")
    exec(compile(printed.out, "usage", "exec"), {})
    assert capfd.readouterr().out.strip() in set("0123456789")
    assert main(["export", "digits/smal@ready"]) == 2

    def fails(*_: Any, **__: Any) -> None:
        raise ModuleNotFoundError("No module named 'onnxscript'")

    monkeypatch.setattr(torch.onnx, "export", fails)
    assert main(["export", "digits/small@ready"]) == 2
    assert "pip install onnx" in capfd.readouterr().err.splitlines()[-1]
    assert not Path("small.onnx").exists()
