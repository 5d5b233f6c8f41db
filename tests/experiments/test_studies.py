"""Every study writes its figure and its table, and some of the facts that they show hold."""

import csv
import importlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import experiments.studies
from datamodules.images.digits import Digits
from experiments.studies import (
    fifty_layers,
    flat_and_sharp_minima,
    linear_collapse,
    moving_average,
    norm_batch_size,
    optimizer_steps,
    pointing_game,
    publish,
    saddle_and_plateau,
    softmax_nll,
    ultimus,
    variance_covariance,
)

FOLDER = Path(experiments.studies.__file__).parent
STUDIES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
SHORT = {  # settings with which a long study takes a second or two
    "augmentation_speed": {"seconds": 0.001},
    "backprop_by_hand": {"steps": 50},
    "convolution_as_matrix": {"repeats": 1},
    "embeddings": {"epochs": 3},
    "fifty_layers": {"seeds": 2},
    "flat_and_sharp_minima": {"seeds": 2, "limit": 20},
    "fused_multiply_add": {"draws": 1, "count": 20},
    "kernels_and_maximization": {"epochs": 1, "steps": 5},
    "linear_collapse": {"steps": 20},
    "mixed_precision": {"steps": 2, "data": Digits(batch_size=32, val_size=0)},
    "norm_batch_size": {"seeds": 2, "epochs": 1, "sizes": (16, 64)},
    "optimizer_steps": {"steps": 20},
    "pointing_game": {"count": 20, "asked_of": 2, "epochs": 1, "nets": ["ResNetMini"]},
    "saddle_and_plateau": {"steps": 20},
    "sixteen_bit_accumulation": {"draws": 2},
    "ultimus": {"seeds": 1, "epochs": 1},
    "unrolled_digits": {"epochs": 1},
}


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_writes_one_figure_and_one_table(name, tmp_path, capsys):
    importlib.import_module(f"experiments.studies.{name}").main(tmp_path / "new", **SHORT.get(name, {}))
    assert {path.name for path in (tmp_path / "new").iterdir()} == {f"{name}.png", f"{name}.csv"}
    with Image.open(tmp_path / "new" / f"{name}.png") as figure:
        figure.load()
        assert min(figure.size) > 500
        assert len(figure.convert("RGB").getcolors(1 << 24)) > 20  # something is drawn on it, in color
    with open(tmp_path / "new" / f"{name}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 1
    assert len(capsys.readouterr().out.splitlines()) == len(rows) + 1


def test_each_study_has_a_docstring_with_its_command():
    for name in STUDIES:
        doc = importlib.import_module(f"experiments.studies.{name}").__doc__
        assert f"python -m experiments.studies.{name} [FOLDER]" in doc, name
        assert f"{name}.png and {name}.csv" in doc, name


def test_a_table_with_uneven_lines_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="fields not in fieldnames"):
        publish(tmp_path / "new", "uneven", None, [{"a": 1}, {"a": 1, "b": 2}])
    assert not (tmp_path / "new").exists()


def test_the_command_takes_a_folder_and_shows_the_docstring(monkeypatch, capsys, tmp_path):
    folders = []
    monkeypatch.setattr("sys.argv", ["study", str(tmp_path)])
    experiments.studies.run(folders.append, "What it is.")
    assert folders == [tmp_path]
    monkeypatch.setattr("sys.argv", ["study", "--help"])
    with pytest.raises(SystemExit):
        experiments.studies.run(folders.append, "What it is.")
    assert "What it is." in capsys.readouterr().out


def test_fifty_layers_overflow_vanish_or_hold():
    def last(rule: str, act: nn.Module) -> float:
        return fifty_layers.outputs(fifty_layers.RULES[rule][0], act, 0)[-1].double().std().item()

    assert math.isnan(last("standard normal", nn.Identity()))
    assert last("normal, std 0.01", nn.ReLU()) == 0
    assert 0.1 < last("Glorot", nn.Identity()) < 10
    assert last("Glorot", nn.ReLU()) < 1e-5
    assert 0.01 < last("Kaiming", nn.ReLU()) < 100


def test_both_formulas_give_the_variance_and_covariance_of_a_reference():
    x, y = variance_covariance.points(3.0, 500)
    right = torch.cov(torch.stack([x, y]), correction=0)
    for formula in (variance_covariance.of_deviations, variance_covariance.of_products, variance_covariance.of_torch):
        torch.testing.assert_close(formula(x, x), right[0, 0], rtol=1e-12, atol=0)
        torch.testing.assert_close(formula(x, y), right[0, 1], rtol=1e-12, atol=0)
    far = variance_covariance.row(10_000.0, "variance")
    assert far["products, float32"] > 0.5 > 1e-4 > far["deviations, float32"]


def test_a_moving_average_is_that_of_momentum_and_the_unbiased_one_keeps_a_constant():
    torch.testing.assert_close(
        moving_average.moving_average(torch.full((2, 9), 3.0), 0.9, True), torch.full((2, 9), 3.0)
    )
    weight = nn.Parameter(torch.zeros(1))
    optimizer = optimizer_steps.Momentum([weight], lr=1.0, momentum=0.7)
    gradients, before = torch.tensor([2.0, -1.0, 0.5]), 0.0
    averages = moving_average.moving_average(gradients, 0.7, False)
    for gradient, average in zip(gradients, averages, strict=True):
        weight.grad = gradient[None]
        optimizer.step()
        assert before - weight.item() == pytest.approx(average.item(), abs=1e-6)
        before = weight.item()


def test_the_tables_hold_the_steps_of_the_optimizers():
    start = torch.tensor(optimizer_steps.START)
    for name, (make, _) in optimizer_steps.OPTIMIZERS.items():
        rows = optimizer_steps.table(name, *optimizer_steps.descend(make, optimizer_steps.valley, start, 3))
        assert [(row["step"], row["parameter"]) for row in rows] == [(s, p) for s in (1, 2, 3) for p in "xy"]
        for now, following in zip(rows, rows[2:], strict=False):
            assert now["after"] == following["before"]
        for row in rows:
            slope = 1 if row["parameter"] == "x" else 30
            assert row["gradient"] == pytest.approx(slope * row["before"], rel=1e-5)
            assert row["before"] + row["update"] == pytest.approx(row["after"], abs=1e-6)
    plain = optimizer_steps.descend(optimizer_steps.OPTIMIZERS["SGD"][0], optimizer_steps.valley, start, 2)[0]
    torch.testing.assert_close(plain[2], start * torch.tensor([1 - 0.04, 1 - 0.04 * 30]) ** 2)


def test_steps_needed_is_the_step_after_which_the_loss_stays_low():
    assert optimizer_steps.steps_needed(torch.tensor([1.0, 1e-4, 1.0, 1e-4, 1e-5])) == 3
    assert optimizer_steps.steps_needed(torch.tensor([1.0, 1e-4, 1.0])) is None


def test_saddle_and_plateau_are_flat_where_they_should_be_and_the_first_steps_are_counted():
    for loss, place in ((saddle_and_plateau.saddle, [0.0, 0.0]), (saddle_and_plateau.plateau, [9.0, 9.0])):
        w = torch.tensor(place, requires_grad=True)
        assert torch.autograd.grad(loss(w), w)[0].norm().item() < 1e-6
    assert saddle_and_plateau.saddle(torch.tensor([0.0, 1.0])) < saddle_and_plateau.saddle(torch.zeros(2))
    assert saddle_and_plateau.first_steps(torch.tensor([[False, False], [True, False], [True, False]])) == [1, None]


def test_a_stack_of_linear_layers_is_one_matrix_of_the_narrowest_rank():
    layers = linear_collapse.random_layers(1)
    matrix, x = linear_collapse.collapsed(layers), torch.randn(9, linear_collapse.SIZES[0], dtype=torch.float64)
    torch.testing.assert_close(layers(x), x @ matrix.T, rtol=0, atol=1e-12)
    assert torch.linalg.matrix_rank(matrix) == min(linear_collapse.SIZES)


def test_log_sum_exp_is_torchs_loss_and_the_direct_formula_overflows():
    logits = torch.tensor([3.0, -2.0, 0.5])
    expected = softmax_nll.loss_and_gradient(softmax_nll.of_torch, logits, 1)
    for compute in (softmax_nll.direct, softmax_nll.log_sum_exp):
        assert softmax_nll.loss_and_gradient(compute, logits, 1) == pytest.approx(expected)
    large = softmax_nll.row(100.0)
    assert large["direct: loss"] == math.inf
    assert large["log-sum-exp: loss"] == large["torch: loss"] == 100


def test_curvature_is_the_largest_eigenvalue_and_profiles_pass_through_the_weights(monkeypatch):
    torch.manual_seed(0)
    x, y = torch.randn(40, 4), torch.randint(3, (40,))
    monkeypatch.setattr(flat_and_sharp_minima, "digits", lambda split: (x, y))
    net = nn.Sequential(nn.Linear(4, 3))
    monkeypatch.setattr(flat_and_sharp_minima, "NET", net)
    weights = {name: w.detach() for name, w in net.named_parameters()}
    flat = torch.cat([w.flatten() for w in weights.values()])

    def loss(numbers: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(x @ numbers[:12].view(3, 4).T + numbers[12:], y)

    largest = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, flat)).max().item()
    assert flat_and_sharp_minima.curvature(weights, rounds=200) == pytest.approx(largest, rel=1e-3)
    profile = flat_and_sharp_minima.around(weights, "train")
    assert profile[len(profile) // 2].item() == pytest.approx(loss(flat).item(), rel=1e-5)
    assert profile.min() > 0
    assert profile[0] != profile[-1]


def test_norms_and_batch_sizes_see_the_same_samples_in_the_same_order(monkeypatch):
    seen = []

    class Recorder(norm_batch_size.PlainConvNet):
        def forward(self, x):
            if self.training:
                seen.append(x)
            return super().forward(x)

    monkeypatch.setattr(norm_batch_size, "PlainConvNet", Recorder)
    samples = []
    for norm, _ in norm_batch_size.NORMS.values():
        for size in (32, 64):
            seen.clear()
            assert 0 < norm_batch_size.error_of(norm, size, seed=0, epochs=1) < 50
            assert {len(x) for x in seen} == {size}
            samples.append(torch.cat(seen))
    assert len(samples[0]) == 1408
    assert all(torch.equal(samples[0], other) for other in samples[1:])


def test_a_map_points_where_its_largest_value_is_and_an_empty_one_nowhere():
    scenes = pointing_game.draw_scenes(6, seed=1)
    asked = pointing_game.questions(scenes)
    inside = np.stack([question.inside for question in asked])
    assert {question.image for question in asked} == {i for i in range(6) if len(scenes.colors[i].unique()) > 1}
    for question in asked:
        area = (scenes.boxes[question.image][scenes.colors[question.image] == question.label]).double()
        expected = ((area[:, 2] - area[:, 0]) * (area[:, 3] - area[:, 1])).sum().item()
        assert question.inside.sum() == pytest.approx(expected, rel=0.25)  # boxes end within pixels
    right, everywhere = inside.astype(np.float32), np.ones(inside.shape, np.float32)
    for maps, points, mass in ((right, 1, 1), (1 - right, 0, 0), (0 * right, 0, 0)):
        assert (pointing_game.pointing_game(maps, inside) == points).all()
        np.testing.assert_allclose(pointing_game.mass_inside(maps, inside), mass)
    np.testing.assert_allclose(pointing_game.mass_inside(everywhere, inside), inside.mean((1, 2)), rtol=1e-5)


def test_literal_ultimus_leaves_one_direction_and_no_gradient_and_a_residual_connection_keeps_both():
    literal, residual = (ultimus.at_first(form, seed=0) for form in ("literal", "residual"))
    assert literal["signal"][-1] < 1e-5 * literal["signal"][0]
    assert literal["first"][0] < 0.5 < 0.99 < literal["first"][2]
    assert literal["gradient"][0] < ultimus.EPS < 1e-3 * literal["gradient"][-1]
    torch.testing.assert_close(residual["signal"], residual["signal"][0].expand(5), rtol=0.1, atol=0)
    assert residual["first"].max() < 0.5
    assert residual["gradient"][0] > 1e5 * ultimus.EPS
