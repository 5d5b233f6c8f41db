"""The page that compares runs: of any recipes, as long as they have a metric in common."""

import copy
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from callbacks.figures.axis import loss_axis
from zoo.command.main import main
from zoo.report import comparison
from zoo.report.run import read_run


@pytest.fixture
def compared(taken_apart):
    def compare(*folders: Path):
        runs = [read_run(folder) for folder in folders]
        names = comparison.labels(runs)
        return taken_apart(comparison.comparison(runs, names, comparison.common_metrics(runs, names)))

    return compare


@pytest.fixture
def other_config(kit):
    config = copy.deepcopy(kit.config)
    config["model"]["init_args"]["width"] = 16
    config["trainer"]["callbacks"] = [
        {"class_path": "a.C", "init_args": {"m": 2}},
        {"class_path": "a.B", "init_args": {"n": 1}},
    ]
    return config


def test_curves_figures_and_settings_stand_side_by_side(make_run, compared, kit, other_config):
    better = [{**row, **{name: 0.9375 for name in row if name == "val/acc"}} for row in kit.rows]
    items = {"misclassified_val": kit.classified(kit.mistake(1, "cat", "dog", 2.0), split="val")}
    items["confusion_val"] = kit.confusion(["cat", "dog"], [[5, 2], [3, 30]], split="val")
    page = compared(make_run("a/one", items=items), make_run("a/two", rows=better, config=other_config, items=items))
    assert page.text.startswith("one, two")
    assert re.search(r"Accuracy, validation 75\.00 % 93\.75 % best", page.text), "the better one is marked"
    assert "model.width 8 16" in page.text
    assert "trainer.callbacks.C a.C" in page.text, "the callback that only one has, whatever its place"
    assert "trainer.callbacks.C.m" not in page.text
    assert "trainer.callbacks.B" not in page.text, "what both have, at different places"
    assert "F1 of each class" in page.text
    assert len(page.all("img")) == 2
    svg = next(attributes for tag, attributes in page.elements if attributes.get("class") == "plot")
    for name in ("one, training", "one, validation", "two, training", "two, validation"):
        assert name in svg["aria-label"]


def test_runs_of_any_recipes_are_compared_by_what_they_share(make_run, compared, kit):
    texts = {"samples": {"kind": "texts", "items": [{"epoch": 1, "step": 2, "loss": 1.0, "text": "To be"}]}}
    rows = [{"epoch": i, "step": i, "val/loss": 2.0 - i, "val/perplexity": 9.0} for i in range(2)]
    page = compared(make_run("a/one"), make_run("language/gpt", rows=rows, items=texts), make_run("c/three"))
    assert page.text.startswith("a/one, language/gpt, c/three")
    plots = [attributes["aria-label"] for _, attributes in page.elements if attributes.get("class") == "plot"]
    found = list(dict.fromkeys(label.partition(",")[0] for label in plots))
    assert found == ["Loss", "Accuracy"], "what all have, then what two have"
    assert "perplexity" not in page.text
    assert "To be" in page.text


def test_runs_without_a_common_metric_are_refused_in_one_line(make_run, tmp_path, monkeypatch, capsys, kit):
    monkeypatch.chdir(tmp_path)
    make_run("a/one")
    make_run("b/two", rows=[{"epoch": 0, "step": 1, "val/fid": 3.0}])
    assert main(["compare", "runs/a/one", "runs/b/two"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no metric in common (a/one: loss (cross-entropy in nats), acc (accuracy in %); b/two: fid)" in line
    make_run("b/three", rows=[{"epoch": 0, "step": 1, "val/fid": 2.0}])
    assert main(["compare", "runs/a/one", "runs/b/two", "runs/b/three"]) == 2, "what two of three have is not enough"
    assert not Path("runs/compare").exists()


def test_a_metric_of_the_same_name_in_another_unit_is_not_the_same(make_run, compared, kit):
    axes = {"axes": {"loss": loss_axis("squared error")._asdict()}}
    rows = [{"epoch": 0, "step": 1, "val/loss": 3.0}]
    with pytest.raises(ValueError, match=r"b/two: loss \(squared error\)"):
        compared(make_run("a/one"), make_run("b/two", rows=rows, facts=axes))
    page = compared(make_run("a/three"), make_run("b/four", facts=axes), make_run("b/five", facts=False))
    assert "Loss" not in page.text, "only the accuracies are laid over each other"
    assert "Accuracy, validation 75.00 % best 75.00 % best 75.00 % best" in page.text, "also of runs without axes"


def described(page) -> str:
    """The first plot in words."""
    return next(attributes["aria-label"] for _, attributes in page.elements if attributes.get("class") == "plot")


def test_smoothed_labels_are_a_remark_and_no_other_unit(make_run, compared):
    axis = loss_axis("cross-entropy in nats\n(training: label smoothing 0.1)")
    smooth = {"axes": {"loss": axis._asdict()}}
    page = compared(make_run("a/one"), make_run("a/two", facts=smooth))
    assert "Loss, validation 0.656 best 0.656 best" in page.text
    assert "cross-entropy in nats (training: label smoothing 0.1) two: one, training" in described(page)
    both = compared(make_run("a/three", facts=smooth), make_run("a/four", facts=smooth))
    assert "(training: label smoothing 0.1): three, training" in described(both), "what holds for all names none"


def test_runs_are_told_by_the_same_metric_of_the_same_split(make_run, compared, kit):
    tested = [*kit.rows, {"epoch": 0, "step": 0, "test/acc": 0.9}]
    page = compared(make_run("a/one", rows=tested), make_run("a/two"))
    assert page.text.count("75.00 % val/acc") == 2
    page = compared(make_run("a/three", rows=tested), make_run("a/four", rows=tested))
    assert page.text.count("90.00 % test/acc") == 2


def test_among_runs_with_different_data_none_is_the_best(make_run, compared, kit):
    folders = []
    for name, folder, size in (("a/one", "cats", 8), ("a/two", "cats", 16), ("a/three", "dogs", 8)):
        data = {"class_path": "x.Folder", "init_args": {"folder": folder, "batch_size": size}}
        folders.append(make_run(name, config=kit.config | {"data": data}))
    assert "Accuracy, validation 75.00 % best 75.00 % best" in compared(*folders[:2]).text
    page = compared(*folders)
    assert "% best" not in page.text
    assert "The runs have different data" in page.text


def test_what_a_recipe_is_stands_once_in_one_sentence(make_run, compared):
    title = {"title": "A small net: `zoo fit a/one`. It was tuned. Nothing else was."}
    first = make_run("a/one", facts=title)
    page = compared(first, shutil.copytree(first, first.with_name("second")))
    assert page.text.count("A small net") == 1
    assert "It was tuned" not in page.text


def test_points_of_a_single_epoch_tell_training_from_validation(make_run, kit):
    runs = [read_run(make_run("a/one", rows=kit.rows[:2])), read_run(make_run("a/two"))]
    names = comparison.labels(runs)
    (axes, _) = comparison.draw(runs, names, comparison.common_metrics(runs, names)).axes
    single = [line for line in axes.lines if len(line.get_xdata()) == 1]
    assert len({line.get_color() for line in single}) == 1
    assert len({line.get_markerfacecolor() for line in single}) == 2


def test_of_many_runs_each_split_has_a_panel_with_a_line_for_each(make_run, compared):
    folders = [make_run(f"a/{name}") for name in ("one", "two", "three")]
    runs = [read_run(folder) for folder in folders]
    names = comparison.labels(runs)
    figure = comparison.draw(runs, names, comparison.common_metrics(runs, names))
    lines = {axes.get_title("left"): len(axes.lines) for axes in figure.axes}
    assert lines == {f"{metric}, {split}": 3 for metric in ("Loss", "Accuracy") for split in ("validation", "training")}
    assert next(iter(lines)) == "Loss, validation"
    plots = [attributes for _, attributes in compared(*folders).elements if attributes.get("class") == "plot"]
    assert len(plots) == len(lines)


def test_values_that_look_the_same_are_equally_good(make_run, compared, kit):
    rows = [{**row, **{name: value + 1e-6 for name, value in row.items() if name == "val/acc"}} for row in kit.rows]
    page = compared(make_run("a/one"), make_run("a/two", rows=rows))
    assert re.search(r"Accuracy, validation 75\.00 % best 75\.00 % best", page.text)


@pytest.mark.parametrize(
    ("names", "seeds", "expected"),
    [
        (("a/one", "a/two"), (0, 0), ["one", "two"]),
        (("a/one", "b/one"), (0, 0), ["a/one", "b/one"]),
        (("a/one", "a/one"), (0, 1), ["one, seed 0", "one, seed 1"]),
        (("a/one", "a/one"), (0, 0), ["one first", "one second"]),
    ],
)
def test_runs_are_called_by_what_tells_them_apart(make_run, kit, names, seeds, expected):
    runs = []
    for name, seed, time in zip(names, seeds, ("first", "second"), strict=True):
        folder = make_run(name, config=kit.config | {"seed_everything": seed})
        runs.append(read_run(folder.rename(folder.with_name(time))))
    assert comparison.labels(runs) == expected


def test_the_verb_writes_a_page_and_a_picture(make_run, tmp_path, monkeypatch, capsys, taken_apart):
    monkeypatch.chdir(tmp_path)
    folders = [str(make_run(f"a/{name}")) for name in "xyz"]
    assert main(["compare", *folders]) == 0
    named = dict(line.split() for line in capsys.readouterr().out.splitlines())
    page, picture = named["page"], named["picture"]
    assert Path(page).parent == Path("runs/compare")
    taken_apart(Path(page).read_text())
    assert Image.open(picture).width > 1000
    assert main(["compare", *folders[:2], "--out", "norms.html"]) == 0
    assert {"norms.html", "norms.png"} <= {path.name for path in Path().iterdir()}


@pytest.mark.parametrize(
    ("runs", "told"),
    [
        (["a/x"], "1 run is given: expected 2 to 8"),
        (["a/x"] * 2, "runs/a/x/20260101-000000 is given twice: expected different runs"),
        (["a/x", "elsewhere"], "elsewhere is no run"),
        ([f"a/r{n}" for n in range(9)], "9 runs are given: expected 2 to 8"),
    ],
)
def test_what_cannot_be_compared_is_one_line(make_run, tmp_path, monkeypatch, capsys, runs, told):
    monkeypatch.chdir(tmp_path)
    for name in {name for name in runs if "/" in name}:
        make_run(name)
    assert main(["compare", *(f"runs/{name}" if "/" in name else name for name in runs)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
