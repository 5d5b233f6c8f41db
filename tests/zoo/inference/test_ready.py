"""Ready models are small files that hold all it takes to use them; damage and foreign code in them are found."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import zoo
from zoo import trust
from zoo.command import recipes
from zoo.command.actions.publish import ROOM
from zoo.command.actions.schedule import NO_TRAINING_OPTIONS
from zoo.command.checkpoints import load_module
from zoo.command.lightning_cli import ZooCLI
from zoo.inference import ready
from zoo.inference.ready import Card
from zoo.results import ledger

NAMES = ready.names()
SAMPLE = 1000  # images or windows of text at most that the figures are checked on
CARD = Card(
    recipe="digits/small", module="zoo.classification.plain_conv.PlainConv", dataset="datamodules.images.digits.Digits",
    hyper_parameters={"num_classes": 3}, data={"classes": ["a", "b", "c"]}, license="none", metric="test/acc",
    result={"test/acc": 0.5}, seed=0, commit="abc", date="2026-01-01", description="é", left_out={"pool": [2, 3]},
)  # fmt: skip


def state() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {
        "net.weight": torch.randn(3, 4, generator=draw).T,  # not contiguous
        "net.bias": torch.randn(4, generator=draw),
        "net.steps": torch.tensor(7),
        "net.table": torch.arange(6).view(2, 3),
    }


def test_a_file_gives_back_its_card_and_tensors(tmp_path):
    path = ready.write(tmp_path / "new" / "a.safetensors", CARD, state())
    card, found = ready.read(path)
    assert card == CARD == ready.read_card(path)
    assert set(found) == {*state(), "pool"}
    assert all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in state().items()
    )
    assert found["pool"].shape == (2, 3)
    assert not found["pool"].any()
    with safe_open(path, "pt") as file:  # another program reads it, too
        assert json.loads(file.metadata()["hyper_parameters"]) == {"num_classes": 3}
        assert file.metadata()["description"] == "é"
    assert [one.name for one in path.parent.iterdir()] == ["a.safetensors"]


def test_a_tensor_of_two_names_is_in_the_file_once(tmp_path):
    weight = torch.randn(50, 40)
    same = {"net.token.weight": weight, "net.head.weight": weight, "net.part": weight[:1], "net.t": weight.T}
    path = ready.write(tmp_path / "a.safetensors", CARD, same)
    card, found = ready.read(path)
    assert card.tied == {"net.head.weight": "net.token.weight"}
    assert set(load_file(path)) == {"net.token.weight", "net.part", "net.t"}
    assert all(torch.equal(found[name], tensor) for name, tensor in same.items())


def test_half_precision_rounds_matrices_and_leaves_the_rest(tmp_path):
    path = ready.write(tmp_path / "a.safetensors", CARD, state(), half=True)
    stored, (_, found) = load_file(path), ready.read(path)
    assert {name: tensor.dtype for name, tensor in stored.items()} == {
        "net.weight": torch.half, "net.bias": torch.float32, "net.steps": torch.int64, "net.table": torch.int64,
    }  # fmt: skip
    assert torch.equal(found["net.weight"], state()["net.weight"].half().float())
    assert torch.equal(found["net.bias"], state()["net.bias"])
    with pytest.raises(ValueError, match=r"net\.weight has numbers up to 1e\+05"):
        ready.write(path, CARD, {"net.weight": torch.full((2, 2), 1e5)}, half=True)
    assert torch.equal(ready.read(path)[1]["net.bias"], state()["net.bias"]), "the file stays as it was"


def test_a_flipped_bit_anywhere_in_card_or_tensors_is_found(tmp_path):
    path = ready.write(tmp_path / "a.safetensors", CARD, state())
    whole = path.read_bytes()
    for at in range(len(whole)):
        broken = bytearray(whole)
        broken[at] ^= 1 << at % 8
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"a\.safetensors is (damaged|not a ready model)"):
            ready.read(path)
    for size in (0, 5, 100, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"a\.safetensors is (damaged|not a ready model)"):
            ready.read(path)


def test_what_is_not_a_ready_model_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="it has no card"):
        ready.read(path)
    save_file({"weight": torch.zeros(2)}, path, {"recipe": "digits/small"})
    with pytest.raises(ValueError, match="its card has no module"):
        ready.read_card(path)
    save_file({"weight": torch.zeros(2)}, path, CARD.header() | {"result": "good"})
    with pytest.raises(ValueError, match="its result is not JSON"):
        ready.read_card(path)
    save_file({"weight": torch.zeros(2)}, path, CARD.header() | {"data": "[1]"})
    with pytest.raises(ValueError, match=r"its data is \[1\], which is not a dict"):
        ready.read_card(path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        ready.read(tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="not plain data"):
        ready.write(path, dataclasses.replace(CARD, hyper_parameters={"act": torch.nn.ReLU()}), state())


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="nearest: digits/small"):
        zoo.load("digit/smal")
    with pytest.raises(ValueError, match=r"mnist/small .* nearest: digits/small"):
        ready.find("mnist/small")
    with pytest.raises(AttributeError, match="loda"):
        _ = zoo.loda


@pytest.mark.parametrize(
    "changes",
    [
        {"module": "evil_module.Mine"},
        {"hyper_parameters": {"act": "evil_module.Act"}},
        {"hyper_parameters": {"act": {"class_path": "os.system", "init_args": {"command": "touch ran"}}}},
    ],
    ids=["module", "argument", "call"],
)
def test_a_card_runs_nothing(tmp_path, monkeypatch, changes):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trust, "own", set())
    monkeypatch.syspath_prepend(tmp_path)
    Path("evil_module.py").write_text("from pathlib import Path\nPath('imported').touch()\n")
    path = ready.write(tmp_path / "a.safetensors", dataclasses.replace(CARD, **changes), {})
    with pytest.raises(ValueError, match="trust"):
        zoo.load(path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.safetensors", "evil_module.py"]


def test_to_import_the_package_does_not_import_torch():
    read = "ready.read_card(ready.find('digits/small'))"
    code = f"import sys; from zoo.inference import ready; {read}; print('torch' in sys.modules)"
    root = {"PYTHONPATH": str(Path(zoo.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | root, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_all_together_are_small():
    assert sum(ready.path_of(name).stat().st_size for name in NAMES) < ROOM
    assert {"digits/small", "automata/starry_night"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_says_where_it_is_from_and_can_be_used(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = zoo.load(name)
    card = model.card
    for field in ("recipe", "module", "dataset", "license", "commit", "date"):
        assert getattr(card, field), field
    assert card.recipe in recipes.names()
    assert card.metric == recipes.expectation(card.recipe).metric
    assert recipes.expectation(card.recipe).met(card.result[card.metric]) or name.startswith("automata/")
    assert not model.training
    if hasattr(model, "generate"):
        assert len(list(model.generate(model.preprocess("A"), 3))) == 3
    elif hasattr(model, "rank"):
        image = torch.zeros(model.preprocess.image_shape, dtype=torch.uint8)
        word = next(word for word in model.tokenizer.get_vocab() if word.isalpha())
        assert model(model.preprocess([image, image]), *model.preprocess_text(word)).shape == (2, 1)
    elif hasattr(model, "sample"):
        image = list(model.net.rollout((16, 16), frames=2, every=60))[1]
        assert image.std() > 0.01
    else:
        image = torch.zeros(model.preprocess.image_shape, dtype=torch.uint8)
        with torch.inference_mode():
            outputs = model(model.preprocess([image] * 2))
        detections = model.detect(model.preprocess(image)) if hasattr(model, "detect") else None
        assert len(detections) == 1 if detections is not None else outputs.shape == (2, len(model.classes))


@pytest.mark.data
@pytest.mark.parametrize("name", NAMES)
def test_it_reaches_its_figure_on_a_sample_of_real_data(name, tmp_path):
    """Within the error that so few samples have; what the ledger says of the same data counts, and the card."""
    card = ready.read_card(ready.path_of(name))
    options = [*NO_TRAINING_OPTIONS, "--trainer.callbacks=null"]
    if card.dataset.endswith("ImagePair"):
        options += ["--data.content", f"images/style/{Path(name).name}.jpg", "--model.eval_steps=[200,400]"]
    cli = ZooCLI(card.recipe, options, folder=tmp_path)
    data = cli.datamodule
    data.eval_batch_size = min(data.eval_batch_size, SAMPLE)
    batches = -(-SAMPLE // data.eval_batch_size)
    cli.trainer.limit_test_batches = cli.trainer.limit_val_batches = batches if card.metric.startswith("test") else 20
    model, _ = load_module(ready.path_of(name), needs=None)
    evaluate = cli.trainer.test if card.metric.startswith("test/") else cli.trainer.validate
    value = evaluate(model, data, verbose=False)[0][card.metric]
    expected = [card.result[card.metric]]
    if name == card.recipe:
        expected += [float(row["value"]) for row in ledger.latest(name)]
    middle = sum(expected) / len(expected)
    # Three standard errors of a share; for losses and distances, which depend on the sample, more.
    tolerance = 3 * (middle * (1 - middle) / SAMPLE) ** 0.5 + 0.005 if card.metric.endswith("acc") else 0.15 * middle
    assert value == pytest.approx(middle, abs=max(tolerance, 0.01))
