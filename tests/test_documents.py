"""What README.md and the pages of docs say is true: commands, links, code, the notebook; and how they are generated."""

import argparse
import ast
import functools
import importlib
import io
import json
import re
import shlex
import shutil
import string
from collections.abc import Iterator
from pathlib import Path

import pytest
from lightning.pytorch.cli import LightningArgumentParser

from experiments.notebooks import convert
from helpers import draw_picture, verse, write_voc
from zoo.command import main, recipes
from zoo.command.lightning_cli import ZooCLI
from zoo.command.options import by_name
from zoo.inference import ready
from zoo.results import documents, ledger
from zoo.results.documents import described, measured

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# Words that stand for something of the user's: what they are here.
STANDS_FOR = {"VERB": "list", "RECIPE": "digits/small", "NAME": "digits/small", "MODEL": "digits/small"}
EXAMPLES = {"digits/my-net"}  # recipes that a document has the reader write
TINY = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "3", "--trainer.limit_val_batches", "1"]


def without_generated(text: str) -> str:
    """A document without the sections that are written by `zoo results`."""
    return re.sub(rf"{documents.BEGIN.pattern}.*?<!-- end of \1 -->", "", text, flags=re.DOTALL)


def blocks(text: str) -> list[tuple[str, str]]:
    """The language and the lines of each block of code."""
    return re.findall(r"(?ms)^ *```(\w*)\n(.*?)^ *```", text)


def commands_in(path: Path) -> list[list[str]]:
    """The `zoo` commands of a document as words, in blocks and within sentences."""
    text = without_generated(path.read_text())
    lines = [line for language, code in blocks(text) if not language for line in re.sub(r"\\\n", " ", code).split("\n")]
    prose = re.sub(r"(?ms)^ *```.*?^ *```", "", text)
    lines += re.findall(r"`((?:\.venv/bin/)?zoo [a-z][^`]*)`", prose)
    found = []
    for line in lines:
        if command := re.search(r"(?:^|[$|] |-m )zoo ([a-zA-Z].*)", line.strip()):
            words = [STANDS_FOR.get(word, word) for word in shlex.split(command[1], comments=True)]
            found.append(words)
    return found


class Parser(ZooCLI):
    """The parser of recipes and options, which builds nothing."""

    def before_instantiate_classes(self) -> None:
        pass

    def instantiate_classes(self) -> None:
        pass


@functools.cache
def parser() -> LightningArgumentParser:
    """It takes half a second to make, and knows all recipes."""
    return Parser("digits/small").parser


def names_of_models(args) -> Iterator[str]:
    """The recipes, runs and models that a command names, without files and folders that stand for the user's."""
    for key in ("recipe", "source", "run", "runs"):
        value = getattr(args, key, None)
        for name in value if isinstance(value, list) else [value]:
            if name and not re.search(r"[A-Z]", name) and "." not in name:
                yield name


def check(words: list[str]) -> None:
    """Raises an error unless the verb, its arguments, the recipes and the options of these exist."""
    verb = words[0]
    assert verb in main.verbs(), words
    if "--help" in words or words == [verb]:  # which a sentence only mentions
        return
    args, rest = main.make_parser([word for word in words if not word.startswith("-")]).parse_known_args(words)
    module = main.import_verb(verb)
    assert not rest or getattr(module, "TAKES_OPTIONS", False), words
    for name in names_of_models(args):
        assert name.removesuffix(recipes.READY) in {*recipes.names(), *ready.names(), *EXAMPLES}, words
    options = by_name([word for word in rest if not word.endswith(".help")])
    if options and getattr(args, "recipe", None) in recipes.names():
        try:
            parser().parse_args(["--config", str(recipes.find(args.recipe)), *options])
        except argparse.ArgumentError as error:
            raise ValueError(str(error)) from None


def test_there_are_commands_in_the_documents():
    assert len(DOCUMENTS) > 10
    found = [words[0] for path in DOCUMENTS for words in commands_in(path)]
    assert len(found) > 50
    assert {"fit", "predict", "reproduce", "report", "find", "grow"} <= set(found)


def test_every_command_of_the_documents_is_one(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(main, "verbs", functools.cache(main.verbs))
    for words in sorted({tuple(words) for path in DOCUMENTS for words in commands_in(path)}):
        try:
            check(list(words))
        except (AssertionError, SystemExit, ValueError) as error:
            pytest.fail(f"zoo {shlex.join(words)}: {error}")


@pytest.mark.parametrize(
    "command",
    ["fi digits/small", "fit digits/smal", "list --yaml", "fit digits/small --trainer.epochs 2", "anchors --k 3"],
    ids=["verb", "recipe", "argument", "option", "missing"],
)
def test_a_command_that_is_not_one_is_noticed(command):
    with pytest.raises((AssertionError, ValueError)):
        check(command.split())


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and MkDocs make it."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-")


def test_links_and_images_lead_somewhere():
    broken = []
    for path in [*DOCUMENTS, ROOT / "CHANGELOG.md", ROOT / "RESULTS.md"]:
        text = re.sub(r"(?ms)^ *```.*?^ *```", "", path.read_text())
        for link in re.findall(r"\]\(([^()\s]+)\)", text):
            name, _, anchor = link.partition("#")
            target = path.parent / name if name else path
            if link.startswith(("http:", "https:")):
                continue
            headings = re.findall(r"(?m)^#+ (.*)$", target.read_text()) if anchor and target.exists() else []
            if not target.exists() or (anchor and anchor not in map(slug, headings)):
                broken.append((path.name, link))
    assert broken == []


def test_every_page_is_in_the_navigation_and_pictures_are_small():
    navigation = re.findall(r": ([\w-]+\.md)", (ROOT / "mkdocs.yml").read_text())
    assert {path.name for path in (ROOT / "docs").glob("*.md")} == set(navigation) - {"index.md", "quickstart.md"}
    sizes = {path.name: path.stat().st_size for path in (ROOT / "docs" / "studies").iterdir()}
    assert max(sizes.values()) <= 80_000
    assert sum(sizes.values()) <= 40_000 * len(sizes)


def test_every_picture_of_a_study_is_of_one_that_exists():
    studies = {path.stem for path in (ROOT / "experiments" / "studies").glob("[!_]*.py")}
    pictures = {path.stem for path in (ROOT / "docs" / "studies").glob("*.webp")}
    assert pictures <= studies
    assert len(pictures) > 10


def test_code_of_the_documents_imports_what_exists():
    imported = 0
    for path in DOCUMENTS:
        for language, code in blocks(without_generated(path.read_text())):
            if language == "python" and path.name != "CONTRIBUTING.md":  # whose example a test of its own runs
                for node in ast.walk(ast.parse(code)):
                    if isinstance(node, ast.ImportFrom):
                        module = importlib.import_module(node.module)
                        assert all(hasattr(module, alias.name) for alias in node.names), (path.name, ast.unparse(node))
                        imported += 1
    assert imported > 5


# Commands that are run as they stand, in their order, on few data

VERBS = {"fit", "predict", "test", "report", "publish", "grow", "compare", "schedule", "export", "list"}


@pytest.fixture
def session(tmp_path, monkeypatch) -> Path:
    """A working directory with pictures."""
    monkeypatch.chdir(tmp_path)
    for folder in ("PHOTOS", "PICTURES", "photos"):
        for number in range(2):
            path = tmp_path / folder / f"{number}.jpg"
            path.parent.mkdir(exist_ok=True)
            draw_picture(number).save(path)
    draw_picture(0).save("seven.png")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"seven.png\n")))  # for `zoo predict digits/small -`
    return tmp_path


def is_quick(words: list[str]) -> bool:
    """Whether a command is about the digits and trains no longer than it must: of `fit` the one without options."""
    if words[0] in ("grow", "list"):
        return len(words) == 1
    about_digits = "digits/small" in words or "mine.safetensors" in words
    return words[0] in VERBS and about_digits and (words[0] != "fit" or len(words) == 2)


def test_the_commands_of_the_first_pages_work_one_after_the_other(session, capfd):
    pages = [ROOT / "docs" / f"{name}.md" for name in ("getting-started", "ready-models", "generation", "training")]
    done = set()
    for words in (words for page in pages for words in commands_in(page) if is_quick(words)):
        runs = [path.parent.relative_to(session) for path in session.glob("runs/digits/small/*/checkpoints")]
        if words[0] == "compare":
            shutil.copytree(runs[0], "other")
        run = "other" if words[0] == "compare" else str(*runs[:1])
        words = [run if word == "RUN" else word for word in words]
        words += TINY * (words[0] == "fit") + ["--trainer.limit_test_batches", "2"] * (words[0] == "test")
        assert main.main(words) == 0, f"zoo {shlex.join(words)}: {capfd.readouterr().err}"
        done.add(words[0])
    assert done == VERBS


@pytest.fixture
def own_data(session) -> Path:
    """Pictures in folders of classes, boxes as Pascal VOC, and a text, by the names that the documents give them."""
    for number in range(18):
        path = session / "CLASSES" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_picture(number, (40, 40)).save(path)
    write_voc(session / "BOXES", {"trainval": 30, "test": 6})
    Path("TEXT.txt").write_text(verse() + string.printable)
    return session


def test_the_commands_for_own_data_work(own_data, capfd):
    """Those of the README and of the page on own data, but for style transfer, whose weights must be downloaded."""
    stands_for = {"own/pictures": "CLASSES", "own/boxes": "BOXES"}
    done = set()
    for words in (words for page in ("README.md", "docs/own-data.md") for words in commands_in(ROOT / page)):
        if not words[1:] or not words[1].startswith("own/") or tuple(words[:2]) in done:
            continue
        done.add(tuple(words[:2]))
        shorter = TINY * (words[0] == "fit") + ["--trainer.callbacks", "null"] * (words[0] == "fit")
        given = {"FOLDER": stands_for.get(words[1], ""), "PICTURES": "CLASSES", "NEW_PICTURES": "PHOTOS"}
        words = [given.get(word, word) for word in words] + shorter
        assert main.main(words) == 0, f"zoo {shlex.join(words)}: {capfd.readouterr().err}"
    assert len(done) == 6
    assert main.main(["predict", "mnist/under-8k", "PICTURES"]) == 0
    assert len(capfd.readouterr().out.splitlines()) >= 2


@pytest.mark.parametrize("page", ["README.md", "docs/getting-started.md", "docs/ready-models.md"])
def test_the_python_of_the_first_pages_works(session, page):
    """Where it is about the digits, which come with scikit-learn."""
    code = [code for language, code in blocks((ROOT / page).read_text()) if language == "python" and "igits" in code]
    assert code
    for one in code:
        shorter = re.sub(r"max_epochs=\d+", "max_epochs=1, limit_train_batches=2", one)
        exec(compile(shorter, page, "exec"), {})


# The notebook


@pytest.mark.parametrize("name", convert.SCRIPTS)
def test_a_notebook_has_the_cells_of_its_script(name):
    script = convert.FOLDER / name
    notebook = json.loads(script.with_suffix(".ipynb").read_text())
    found = [convert.Cell(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    assert found == convert.cells(script.read_text()), "run `python -m experiments.notebooks.convert`"
    assert not any(cell.get("outputs") for cell in notebook["cells"])


def test_the_quickstart_runs(session, capsys):
    code = [
        cell.source for cell in convert.cells((convert.FOLDER / "quickstart.py").read_text()) if cell.kind == "code"
    ]
    shorter = "\n".join(code).replace("max_epochs=5", "max_epochs=1")
    assert shorter.count("max_epochs=1") == 1
    names: dict = {}
    exec(compile(shorter, "quickstart", "exec"), names)
    printed = capsys.readouterr().out
    assert "reaches test/acc" in printed
    assert names["loss"].item() < 1.5
    assert {path.name for path in Path("runs/quickstart/pictures").iterdir()} >= {"curves.png", "gradcam_test.png"}


# Sections that are generated


def test_a_section_is_replaced_and_the_text_around_it_stays():
    begin, end = documents.marks("studies")
    text, found = documents.fill(f"above\n{begin}\nold\n{end}\nbelow\n")
    assert found == {"studies"}
    assert text.startswith(f"above\n{begin}\n| study | shows |\n")
    assert text.endswith(f"|\n{end}\nbelow\n")
    assert "old" not in text
    assert documents.fill(text)[0] == text


def test_links_of_a_section_are_relative_to_its_document():
    begin, end = documents.marks("systems", "detection")
    for name, link in (("README.md", "(zoo/detection/yolo.py)"), ("docs/detection.md", "(../zoo/detection/yolo.py)")):
        assert link in documents.fill(f"{begin}\n{end}", name)[0]
    begin, end = documents.marks("gallery")
    assert "(studies/activations.webp)" in documents.fill(f"{begin}\n{end}", "docs/studies.md")[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{0}\nno end", "without '<!-- end of studies -->'"),
        ("{0}\n{0}\n{1}", "without '<!-- end of studies -->'"),
        ("<!-- study: written by `zoo results` -->\n<!-- end of study -->", "a section 'study'.*nearest: studies"),
    ],
    ids=["no end", "begun twice", "unknown"],
)
def test_marks_that_do_not_fit_are_an_error(text, message):
    with pytest.raises(ValueError, match=message):
        documents.fill(text.format(*documents.marks("studies")))


def test_every_system_of_a_recipe_is_described_on_the_page_of_its_shelf():
    shelves = {name: recipes.shelf(name) for name in recipes.names()}
    assert set(shelves.values()) == {"classification", "generation", "detection", "language", "multimodal"}
    section = described.systems(*set(shelves.values()))
    assert not [name for name in shelves if f"| [{name}](experiments/{name}.yaml) |" not in section]
    assert all(len(line) > 2 for line in re.findall(r"(?m)^### (.*)$", section))
    for shelf in shelves.values():
        page = (ROOT / "docs" / f"{shelf}.md").read_text()
        assert documents.marks("systems", shelf)[0] in page


def test_classes_that_are_bases_or_records_are_left_out():
    table = described.classes("callbacks/galleries", "datamodules/augment/images.py")
    assert "| [`GradCAMGallery`](callbacks/galleries/gradcam.py) |" in table
    assert "and 5" in next(line for line in table.split("\n") if "`Flip`" in line)  # its recipes are many
    assert not re.search(
        r"`(Augmentation|ImageAugmentation|FigureCallback|Gallery|ClassifierGallery|Classified)`", table
    )


def test_the_missed_targets_are_those_of_the_ledger(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "LEDGER", tmp_path / "results.csv")
    row = dict.fromkeys(ledger.COLUMNS, "1") | {"recipe": "digits/small", "metric": "test/acc", "target": 0.97}
    for seed, value, met, commit in (
        (0, 0.9, False, "b"),
        (1, 0.95, False, "b"),
        (0, 0.96, False, "a"),
        (0, 0.98, True, "a"),
    ):
        ledger.append(row | {"seed": seed, "value": value, "met": met, "commit": commit})
    ledger.append(row | {"recipe": "digits/gone", "value": 0.5, "met": False})
    lines = measured.missed().split("\n")[2:]
    assert len(lines) == 3
    assert lines[0].startswith("| digits/gone | test/acc 0.97 | 0.5000 |")
    assert "0.9000, 0.9500 | 1 | >= 0.97 | 0.9650" in lines[1]
    assert "| 0.9600 | 1 | >= 0.97 | 0.9650" in lines[2]  # another commit, the later one
