"""The end of a run: what it says of itself, the page in its folder, three lines, and no run that fails by its page."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from callbacks.figures.axis import Axis
from zoo.command import recipes
from zoo.command.main import main
from zoo.report import summary

SHORT = ["--trainer.max_epochs", "2", "--trainer.limit_train_batches", "3", "--trainer.accelerator", "cpu"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines_of(capfd) -> dict[str, str]:
    """The last three lines that were printed, by their first word."""
    lines = capfd.readouterr().out.splitlines()[-3:]
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}


def test_fit_and_test_end_with_figures_a_page_and_the_next_command(capfd, taken_apart):
    assert main(["fit", "digits/small", *SHORT, "--model.label_smoothing", "0.2"]) == 0
    (folder,) = Path("runs/digits/small").iterdir()
    told = lines_of(capfd)
    assert told.keys() == {"result", "report", "next"}
    assert told["result"].startswith("val/acc ")
    assert " %, val/loss " in told["result"]
    assert " TFLOP" in told["result"]
    assert told["report"] == f"{folder}/report.html"
    assert told["next"] == f"zoo predict {folder} YOUR_IMAGES"
    facts = json.loads((folder / "run.json").read_text())
    assert (facts["recipe"], facts["state"], facts["parameters"]) == ("digits/small", "finished", 77754)
    assert facts["seconds"] > 0
    assert facts["tflop"] > 0
    assert facts["samples"] == 2 * 3 * 64
    assert facts["axes"]["loss"]["label"] == "cross-entropy in nats\n(training: label smoothing 0.2)"
    differs = {key: (there, here) for key, there, here in facts["differs"]}
    assert differs == {
        "trainer.max_epochs": (20, 2),
        "trainer.limit_train_batches": (None, 3),
        "trainer.accelerator": ("auto", "cpu"),
        "model.label_smoothing": (0.1, 0.2),
    }
    assert {path.stem for path in (folder / "items").iterdir()} == {"confusion_val", "gradcam_val", "misclassified_val"}
    before = taken_apart((folder / "report.html").read_text())
    assert "Validation set" in before.text
    assert "Test set" not in before.text

    assert main(["test", str(folder)]) == 0
    told = lines_of(capfd)
    assert told["result"].startswith("test/acc ")
    assert " (target 97.00 %: missed), test/loss " in told["result"]
    after = taken_apart((folder / "report.html").read_text())
    assert "Test set" in after.text
    assert "target at least 97.00 %: missed" in after.text
    assert json.loads((folder / "run.json").read_text())["seconds"] == facts["seconds"], "a test is no training"


def test_a_page_that_fails_costs_a_line_and_not_the_run(capfd, monkeypatch):
    def broken(folder):
        raise RuntimeError("no\nspace")

    monkeypatch.setattr(summary, "write_report", broken)
    assert main(["fit", "digits/small", *SHORT]) == 0
    out, err = capfd.readouterr()
    (line,) = [line for line in err.splitlines() if "report" in line]
    (folder,) = Path("runs/digits/small").iterdir()
    assert line == f"the report could not be written (RuntimeError: no space); `zoo report {folder}` tries again"
    assert "val/acc" in out
    assert (folder / "checkpoints/last.ckpt").is_file()


def test_without_checkpoints_and_loggers_nothing_else_is_promised(capfd):
    options = ["--trainer.enable_checkpointing", "false", "--trainer.logger", "false", "--trainer.callbacks", "null"]
    assert main(["fit", "digits/small", *SHORT, *options]) == 0
    (folder,) = Path("runs/digits/small").iterdir()
    assert lines_of(capfd)["next"] == f"zoo report {folder}"
    assert "No metric was logged" in (folder / "report.html").read_text()


TOKENIZERS = {known: SimpleNamespace(token_to_id=lambda token, known=known: known) for known in (None, 3)}
SYSTEMS = {
    "zoo generate runs/x": ({"generate": 1}, {"tokenizer": TOKENIZERS[None]}),
    'zoo fill runs/x "A TEXT WITH [MASK]"': ({}, {"tokenizer": TOKENIZERS[3]}),
    "zoo predict runs/x YOUR_IMAGES": ({"detect": 1}, {"classes": "ab", "image_shape": (3, 8, 8)}),
    'zoo find runs/x "A SENTENCE" --folder YOUR_IMAGES': ({"rank": 1}, {"tokenizer": TOKENIZERS[None]}),
    "zoo fit digits/small --data.content YOUR_IMAGE": ({}, {"content": "a.png"}),
    "zoo compare runs/x ANOTHER_RUN": ({"num_classes": 10}, {"classes": "ab", "image_shape": (3, 8, 8)}),
}


@pytest.mark.parametrize("command", SYSTEMS)
def test_the_next_command_is_one_that_the_system_can(command, here):
    model, data = (SimpleNamespace(**attributes) for attributes in SYSTEMS[command])
    cli = SimpleNamespace(model=model, datamodule=data, folder=here / "runs/x", recipe=recipes.find("digits/small"))
    cli.settings = {"model": {"class_path": "zoo.x.Y"}}
    assert summary.next_command(cli) == "zoo report runs/x", "there is no checkpoint"
    (cli.folder / "checkpoints").mkdir(parents=True)
    (cli.folder / "checkpoints/last.ckpt").touch()
    assert summary.next_command(cli) == command
    cli.settings = {"model": {"class_path": "wandb.sdk.Own"}}
    assert summary.next_command(cli) == f"{command} --trust wandb", "what the run's own classes need"


def test_data_of_ones_own_are_not_judged_by_the_target_of_others_and_are_tested_next(pictures, capfd):
    options = ["--data.folder", str(pictures), "--data.epoch_images", "8", "--data.batch_size", "4"]
    assert main(["fit", "own/pictures", *SHORT, *options, "--trainer.callbacks", "null"]) == 0
    (folder,) = Path("runs/own/pictures").iterdir()
    assert lines_of(capfd)["next"] == f"zoo test {folder}"
    assert main(["test", "own/pictures"]) == 0
    told = lines_of(capfd)
    assert told["result"].startswith("test/acc ")
    assert "target" not in told["result"]
    assert told["next"] == f"zoo predict {folder} YOUR_IMAGES"


def test_a_result_tells_the_main_metrics(monkeypatch, here):
    """Those of a detector: the target's first, the losses last, and not all of them."""
    names = ["val/box", "val/loss", "val/map_50_95", "val/map_50", "val/class"]
    cli = SimpleNamespace(
        model=SimpleNamespace(axes=dict.fromkeys(["loss", "map_50", "map_50_95", "box", "class"], Axis("", ""))),
        config_init={}, trainer=None,
    )  # fmt: skip
    monkeypatch.setattr(summary, "epoch_metrics", lambda trainer: dict.fromkeys(names, 0.5))
    told = [part.split()[0] for part in summary.figures(cli, "validate", own_data=False).split(", ")]
    assert told == ["val/map_50", "val/map_50_95", "val/loss"]


def test_seconds_count_on_when_a_training_is_resumed_and_anew_in_another(capfd):
    fit = ["fit", "digits/small", *SHORT, "--trainer.callbacks", "null", "--trainer.default_root_dir", "run"]
    assert main(fit) == 0
    facts = json.loads(Path("run/run.json").read_text())
    Path("run/run.json").write_text(json.dumps(facts | {"seconds": 1000.0, "differs": [["kept", 1, 2]]}))
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    config["trainer"]["max_epochs"] = 3
    Path("run/config.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--resume", "run"]) == 0
    resumed = json.loads(Path("run/run.json").read_text())
    assert 1000 < resumed["seconds"] < 1100
    assert resumed["differs"] == [["kept", 1, 2]], "what differed when it started"
    assert "3 of 3 epochs" in Path("run/report.html").read_text()


def test_a_training_that_breaks_leaves_what_is_known(capfd, monkeypatch):
    from zoo.classification.base import Classifier

    step = Classifier.training_step

    def breaking(self, batch, batch_idx):
        if self.current_epoch == 1:
            raise KeyboardInterrupt
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", breaking)
    assert main(["fit", "digits/small", *SHORT, "--trainer.callbacks", "null"]) == 130
    (folder,) = Path("runs/digits/small").iterdir()
    assert not (folder / "report.html").exists()
    assert main(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text()
    assert "interrupted, 1 of 2 epochs" in page
    assert "training time" in page
