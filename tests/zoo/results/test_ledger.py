"""The ledger loses no row, and RESULTS.md, the README's tables and the ladder are generated."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from datamodules import io
from zoo.command import recipes
from zoo.command.main import main
from zoo.results import documents, ladder, ledger, work

ROW = dict.fromkeys(ledger.COLUMNS, "1") | {"metric": "test/acc"}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """A working directory and a ledger of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ledger, "LEDGER", tmp_path / "results.csv")
    return tmp_path


@pytest.fixture
def own_recipes(here, monkeypatch):
    """A function that writes recipes of the digits, by name, with further entries of `expect`, and a README."""
    monkeypatch.setattr(recipes, "ROOT", here / "root" / "experiments")
    template = yaml.safe_load(Path(ledger.__file__).parents[2].joinpath("experiments/digits/small.yaml").read_text())

    def write(**expect: dict) -> None:
        for name, entries in expect.items():
            path = recipes.ROOT / "rungs" / f"{name}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            content = {"seed_everything": 0} | template
            content["expect"] = {"metric": "test/acc", "at_least": 0.9} | entries
            path.write_text(yaml.safe_dump(content, sort_keys=False))
        tables = "".join("{}\nold\n{}\n".format(*documents.marks(section)) for section in documents.SECTIONS)
        (recipes.ROOT.parent / "README.md").write_text(f"before\n{tables}after\n")

    return write


def append(recipe: str, *values: float) -> None:
    for seed, value in enumerate(values):
        ledger.append(ROW | {"recipe": recipe, "seed": seed, "value": value})


def test_seeds_of_a_net_of_another_size_are_not_averaged_in():
    row = ROW | {"recipe": "digits/small"}
    for seed, parameters, value in ((0, 7330, "0.1"), (2, 7330, "0.2"), (0, 7774, "0.3"), (1, 7774, "0.4")):
        ledger.append(row | {"seed": str(seed), "parameters": str(parameters), "value": value})
    assert [(r["seed"], r["value"]) for r in ledger.latest("digits/small")] == [("0", "0.3"), ("1", "0.4")]


def test_the_worst_seed_and_the_rows_that_do_not_count_are_shown(own_recipes):
    own_recipes(up={}, down={"at_least": None, "at_most": 2.0})
    append("rungs/up", 0.95, 0.91, 0.93)
    append("rungs/up", 0.92)  # seed 0 again
    append("rungs/down", 1.0, 1.5)
    assert ledger.summarize_recipe("rungs/up")["worst"] == "0.9100"
    assert ledger.summarize_recipe("rungs/down")["worst"] == "1.5000"
    runs = {line["recipe"]: line for line in documents.runs()}
    assert runs["rungs/up"]["seeds that count"] == "0: 0.9200, 1: 0.9100, 2: 0.9300"
    assert runs["rungs/up"]["superseded"] == "0: 0.9500 (1)"
    assert not runs["rungs/down"]["superseded"]
    append("rungs/down", 1.25)
    ledger.append(ROW | {"recipe": "rungs/down", "value": 3, "parameters": 2})  # another net
    assert [float(row["value"]) for row in ledger.superseded("rungs/down")] == [1.0, 1.5, 1.25]


def test_a_row_with_other_columns_is_refused():
    with pytest.raises(ValueError, match="expected"):
        ledger.append({"recipe": "digits/small"})
    assert not ledger.LEDGER.exists()


def test_a_write_that_fails_leaves_the_ledger_as_it_was(monkeypatch, here):
    ledger.append(ROW)
    before = ledger.LEDGER.read_bytes()

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(io.os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        ledger.append(ROW)
    assert ledger.LEDGER.read_bytes() == before
    assert {path.name for path in here.iterdir()} <= {"results.csv", "results.lock"}


def test_processes_that_append_at_the_same_time_lose_no_row():
    code = (
        "import pathlib, sys\n"
        "from zoo.results import ledger\n"
        "ledger.LEDGER = pathlib.Path(sys.argv[1])\n"
        "row = dict.fromkeys(ledger.COLUMNS, '1') | {'recipe': sys.argv[2]}\n"
        "for seed in range(20): ledger.append(row | {'seed': seed})\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(ledger.__file__).parents[2])}
    names = [f"shelf/{number}" for number in range(4)]
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(ledger.LEDGER), name], env=environment) for name in names
    ]
    assert [process.wait(timeout=120) for process in processes] == [0] * 4
    assert sorted((row["recipe"], int(row["seed"])) for row in ledger.rows()) == [
        (name, seed) for name in names for seed in range(20)
    ]


def test_the_lock_file_is_ignored_by_git():
    root = Path(ledger.__file__).parents[2]
    if not (root / ".git").exists():
        pytest.skip("not a checkout")
    subprocess.run(["git", "check-ignore", "-q", "experiments/results.lock"], cwd=root, check=True)


def test_results_come_from_the_ledger(own_recipes, capfd):
    own_recipes(quick={"seeds": 2, "featured": True}, unmeasured={"featured": True}, unfeatured={})
    append("rungs/quick", 0.5)
    append("rungs/quick", 0.9, 0.94)  # the second row of seed 0 supersedes the first
    append("rungs/unfeatured", 0.7)
    assert main(["results"]) == 0
    root = recipes.ROOT.parent
    assert capfd.readouterr().out.split() == [str(root / "RESULTS.md"), str(root / "README.md")]
    text = (root / "README.md").read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "0.9200 ± 0.0283" in text
    assert "unmeasured" not in text
    assert "unfeatured" not in text
    results = (root / "RESULTS.md").read_text()
    assert re.findall(r"\n## (.+)\n", results) == ["Classification", "Runs"]
    assert re.findall(r"\n\| rungs/(\w+) ", results.partition("## Runs")[0]) == ["quick", "unfeatured", "unmeasured"]
    assert re.search(r"\| rungs/quick \|.* 0.9200 ± 0.0283 \| 0.9000 \| 2 \| yes \|", results)
    assert re.search(r"\| rungs/unfeatured \|.* 0.7000 \|  \| 1 \| no \|", results)
    assert "| `zoo list` | list the recipes" in text


def test_the_studies_are_listed_with_their_first_lines(own_recipes):
    own_recipes(quick={})
    (recipes.ROOT / "studies").mkdir()
    (recipes.ROOT / "studies" / "gravity.py").write_text('"""What falls down.\n\nAnd why."""\n')
    assert "| `gravity` | What falls down |" in documents.studies()


def test_a_readme_without_the_marks_is_an_error(own_recipes, capfd):
    own_recipes(quick={})
    (recipes.ROOT.parent / "README.md").write_text("no marks")
    assert main(["results"]) == 2
    assert "README.md lacks the marks" in capfd.readouterr().err


def test_the_ladder_is_drawn_from_the_ledger(own_recipes, capfd):
    """A rung without a result has no row, nor has a recipe without a rung; dots are where the ledger has results."""
    own_recipes(
        second={"rung": 2, "label": "normalized"},
        first={"rung": 1, "label": "plain"},
        third={"rung": 3, "label": "not measured"},
        other={},
    )
    for name, values in {"second": (0.85, 0.87), "first": (0.1,), "other": (0.5,)}.items():
        append(f"rungs/{name}", *values)
    assert ladder.rungs("rungs") == ["rungs/first", "rungs/second"]
    axes, gaps = ladder.draw("rungs").axes
    assert [bar.get_width() for bar in gaps.patches] == [0, 0], "training and validation are equal in these rows"
    assert [label.get_text().split() for label in axes.get_yticklabels()] == [
        ["plain", "first"],
        ["normalized", "second"],
    ]
    dots = [line.get_xdata() for line in axes.lines if line.get_marker() == "o"]
    assert pytest.approx([85.0, 87.0]) in [list(xs) for xs in dots]
    assert pytest.approx([86.0]) in [list(xs) for xs in dots]
    ticks = [list(line.get_xdata()) for line in axes.lines if line.get_linewidth() > 2]
    assert ticks == [[90.0, 90.0]] * 2
    assert any("10.0" in text.get_text() for text in axes.texts)
    assert ladder.publish() == [recipes.ROOT.parent / "docs" / "ladder_rungs.png"]
    assert ladder.publish()[0].is_file()


def test_what_training_buys_is_drawn_from_the_ledger(own_recipes):
    """A recipe with a label and no rung is a point, if it has a result; its marker's area follows the parameters."""
    own_recipes(
        large={"label": "large net"}, small={"label": "small net"}, rung={"label": "a rung", "rung": 1}, other={}
    )
    for name, value, tflop, parameters in (("large", 0.8, 50, 400), ("small", 0.9, 20, 100), ("rung", 0.5, 1, 1)):
        row = {"recipe": f"rungs/{name}", "value": value, "tflop": tflop, "parameters": parameters}
        ledger.append(ROW | row | {"samples": 60, "seconds": 20})
    assert work.folders() == ["rungs"]
    (axes,) = work.draw("rungs").axes
    drawn = [(*marker.get_offsets()[0], marker.get_sizes()[0]) for marker in axes.collections]
    assert drawn == [pytest.approx((90, 0, work.LARGEST / 4)), pytest.approx((80, 1, work.LARGEST))], "best first"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["small net", "large net"]
    texts = [text.get_text() for text in axes.texts]
    assert {"90.0 %", "20", "3", "0.1 k"} <= set(texts), "accuracy, work, speed and parameters as numbers"
    assert re.findall(r"\| rungs/(\w+) \| (.+?) \|.* (\S+) \|\n?", documents.work_results()) == [
        ("small", "small net", "3"),
        ("large", "large net", "3"),
    ]
    assert work.publish() == [recipes.ROOT.parent / "docs" / "work_rungs.png"]


def test_speeds_are_those_of_one_device(own_recipes):
    own_recipes(**{name: {"label": name} for name in ("first", "second", "third")})
    for name, device in (("first", "slow"), ("second", "fast"), ("third", "slow")):
        ledger.append(ROW | {"recipe": f"rungs/{name}", "device": device, "samples": 60, "seconds": 20})
    speeds = {point.label: point.speed for point in work.points("rungs")}
    assert speeds == {"first": "3", "second": "", "third": "3"}
    assert {text.get_text() for text in work.draw("rungs").texts} >= {"images/s: slow"}


def test_seconds_and_speeds_of_seeds_on_several_devices_are_of_one(own_recipes):
    own_recipes(first={"label": "first"}, second={"label": "second"})
    for seed, device, seconds in ((0, "slow", 60), (1, "fast", 20), (2, "fast", 10)):
        ledger.append(
            ROW | {"recipe": "rungs/first", "seed": seed, "device": device, "samples": 60, "seconds": seconds}
        )
    ledger.append(ROW | {"recipe": "rungs/second", "device": "slow", "samples": 60, "seconds": 30})
    assert {point.label: point.speed for point in work.points("rungs")} == {"first": "1", "second": "2"}
    assert ledger.rate("rungs/first", "fast") == "4"
    line = ledger.summarize_recipe("rungs/first")
    assert (line["seconds"], line["device"], line["n"]) == ("15", "fast", "3")


def test_a_ledger_without_the_newest_columns_is_read_and_appended_to(here):
    old = ledger.COLUMNS[:-1]
    ledger.LEDGER.write_text(",".join(old) + "\n" + ",".join("1" for _ in old) + "\n")
    ledger.append(ROW)
    assert [row["val"] for row in ledger.rows()] == ["", "1"]


def test_the_rate_of_samples_is_by_processor_time_where_a_row_has_it():
    """Other work on the machine doubles the seconds, and not the processor's; a GPU's rate is by the seconds."""
    row = ROW | {"recipe": "digits/small", "samples": 60, "seconds": 40, "cpu_seconds": 20}
    for device, rate in (("CPU, 1 thread(s), AVX2", "3"), ("CPU, 2 thread(s), AVX2", "6"), ("1 x GPU, 32-true", "2")):
        ledger.append(row | {"device": device})
        assert ledger.rate("digits/small", device) == rate
    ledger.append(row | {"device": "CPU, 1 thread(s), AVX2", "cpu_seconds": ""})
    assert ledger.rate("digits/small", "CPU, 1 thread(s), AVX2") == "2"


def test_every_recipe_of_fashion_mnist_has_a_rung_of_its_own_and_a_label():
    expected = [recipes.expectation(name) for name in recipes.names() if name.startswith("fashion_mnist/")]
    assert sorted(expect.rung for expect in expected) == list(range(1, len(expected) + 1))
    assert all(expect.label for expect in expected)
