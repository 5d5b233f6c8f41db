"""What the ledger lacks: the order of the runs, what fits into the time left, and going on after an interruption."""

import os
import re
import signal
from pathlib import Path

import pytest
import yaml

from zoo.command import recipes
from zoo.command.actions import reproduce
from zoo.command.main import main
from zoo.results import ledger, missing
from zoo.results.missing import Clock, Run, missing_runs


@pytest.fixture
def own_recipes(tmp_path, monkeypatch):
    """A function that writes recipes of the digits, by name, with further entries of `expect`; a ledger of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recipes, "ROOT", tmp_path / "experiments")
    monkeypatch.setattr(ledger, "LEDGER", tmp_path / "results.csv")
    template = yaml.safe_load(Path(ledger.__file__).parents[2].joinpath("experiments/digits/small.yaml").read_text())
    template["trainer"] = {"max_epochs": 1, "enable_progress_bar": False, "logger": False, "accelerator": "cpu"}

    def write(**expect: dict) -> None:
        for name, entries in expect.items():
            path = recipes.ROOT / "own" / f"{name}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            content = {"seed_everything": 0} | template
            content["expect"] = {"metric": "test/acc", "at_least": 0.0} | entries
            path.write_text(yaml.safe_dump(content, sort_keys=False))

    return write


def test_the_first_seeds_come_first_the_most_wanted_before_the_others_and_what_is_done_is_left_out(own_recipes):
    own_recipes(
        plain={"seeds": 2},
        second={"wanted": 2, "seeds": 2},
        first={"wanted": 1},
        done={"seeds": 2, "wanted": 3},
        elsewhere={"cost": "gpu"},
    )
    ledger.append(dict.fromkeys(ledger.COLUMNS, "1") | {"recipe": "own/done", "seed": 0})
    found = [(run.recipe, run.seed) for run in missing_runs("cpu")]
    assert found == [
        ("own/first", 0), ("own/second", 0), ("own/plain", 0), ("own/second", 1), ("own/done", 1), ("own/plain", 1),
    ]  # fmt: skip
    assert [run.recipe for run in missing_runs("gpu")] == ["own/elsewhere"]


def test_no_run_is_started_that_would_end_too_late(monkeypatch):
    now = 0.0
    monkeypatch.setattr(missing.time, "monotonic", lambda: now)
    clock = Clock(minutes=10)
    assert clock.fits(Run("a", 0, minutes=10))
    assert not clock.fits(Run("a", 0, minutes=10.1))
    assert not clock.fits(Run("a", 0, minutes=0))  # nobody knows how long it takes
    clock.record(Run("a", 0, minutes=2), minutes=4)  # this machine is half as fast as the recipe says
    now = 4 * 60.0
    assert clock.fits(Run("b", 0, minutes=3))
    assert not clock.fits(Run("b", 0, minutes=3.1))
    assert Clock().fits(Run("a", 0, minutes=0))


def test_missing_runs_all_that_fit_and_goes_on_after_a_failure(own_recipes, monkeypatch, capfd):
    """The first recipe fails, the second reaches the ledger, the third does not fit; again: nothing is redone."""
    own_recipes(broken={"wanted": 1, "minutes": 1}, quick={"minutes": 1}, slow={"minutes": 100})
    whole = reproduce.run_seed

    def run_seed(path, *args, **options):
        if path.stem == "broken":
            raise RuntimeError("lightning struck")
        return whole(path, *args, **options)

    monkeypatch.setattr(reproduce, "run_seed", run_seed)
    command = ["reproduce", "--missing", "--cost", "cpu", "--minutes", "30"]
    assert main(command) == 1
    out, err = capfd.readouterr()
    assert "own/broken: failed: RuntimeError: lightning struck" in out
    assert "own/quick: test/acc" in out
    assert "own/slow (100 min)" in err
    assert [row["recipe"] for row in ledger.rows()] == ["own/quick"]
    assert main(command) == 1
    assert len(ledger.rows()) == 1


def test_a_misspelt_option_fails_every_recipe_by_one_line(own_recipes, capfd):
    own_recipes(first={"minutes": 1}, second={"minutes": 1})
    assert main(["reproduce", "--missing", "--cost", "cpu", "--model.widht", "3"]) == 1
    out, err = capfd.readouterr()
    for name, line in zip(("first", "second"), out.splitlines(), strict=True):
        assert line.startswith(f"own/{name}: failed: ")
        assert "'widht'" in line
    assert "Traceback" not in err
    assert not ledger.rows()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["digits/small", "--missing"], "both"),
        ([], "neither"),
        (["digits/small", "--minutes", "5"], "--missing"),
        (["--missing", "--seeds", "3"], "[3]"),
        (["digits/small", "--data", "nowhere"], "nowhere"),
    ],
)
def test_contradictory_arguments_are_refused(arguments, said, capfd):
    assert main(["reproduce", *arguments]) == 2
    assert said in capfd.readouterr().err


def interrupt_at_step(monkeypatch, step: int) -> None:
    """Sends this process a SIGTERM in the middle of its next training."""
    watch = reproduce.Watch

    class Interrupt(watch):
        def on_train_batch_end(self, trainer, *_) -> None:
            if trainer.global_step == step:
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(reproduce, "Watch", Interrupt)


def test_an_interrupted_reproduction_goes_on_by_the_printed_command_and_gives_the_same_row(
    own_recipes, monkeypatch, capfd
):
    own_recipes(short={"seeds": 1})
    path = recipes.ROOT / "own" / "short.yaml"
    path.write_text(path.read_text().replace("max_epochs: 1", "max_epochs: 2"))
    assert main(["reproduce", "own/short"]) == 0
    (whole,) = ledger.rows()
    with monkeypatch.context() as patched:
        interrupt_at_step(patched, step=int(whole["samples"]) // 2 // 100 + 3)  # in the second epoch
        assert main(["reproduce", "own/short"]) == 128 + signal.SIGTERM
    assert len(ledger.rows()) == 1
    command = re.search(r"zoo (reproduce own/short --resume \S+)", capfd.readouterr().err)
    assert main(command[1].split()) == 0
    *_, resumed = ledger.rows()
    for row in (whole, resumed):
        assert float(row.pop("seconds")) > 0
        assert float(row.pop("cpu_seconds")) > 0
    assert resumed == whole


def test_a_run_with_other_settings_or_of_another_commit_is_not_resumed_as_the_recipe(own_recipes, monkeypatch, capfd):
    own_recipes(short={})
    assert main(["reproduce", "own/short"]) == 0
    run = next(Path("runs/own/short").iterdir())
    resume = ["reproduce", "own/short", "--resume", str(run)]
    with monkeypatch.context() as patched:
        patched.setattr(reproduce, "commit", lambda: "another")
        assert main(resume) == 2
    assert "started at commit" in capfd.readouterr().err
    path = recipes.ROOT / "own" / "short.yaml"
    path.write_text(path.read_text().replace("max_epochs: 1", "max_epochs: 3"))
    assert main(resume) == 2
    assert "another trainer" in capfd.readouterr().err
    assert main([*resume[:-1], "nowhere"]) == 2
    assert main([*resume, "--seeds", "1"]) == 2
    assert len(ledger.rows()) == 1
