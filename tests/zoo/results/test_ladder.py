"""The ladder draws accuracy, parameters where they differ, and the gap between training and validation where known."""

import pytest

from zoo.command import recipes
from zoo.results import ladder, ledger

EXPECT = {
    "mnist/first": recipes.Expect("test/acc", at_least=0.99, rung=1, label="heavy"),
    "mnist/second": recipes.Expect("test/acc", at_least=0.97, rung=2, label="light"),
}


def row(recipe: str, seed: int, value: float, parameters: int, **more: str) -> dict[str, str]:
    known = {"recipe": recipe, "seed": str(seed), "value": str(value), "parameters": str(parameters)}
    return dict.fromkeys(ledger.COLUMNS, "") | known | more


@pytest.fixture
def rows(monkeypatch) -> list[dict[str, str]]:
    """The ledger's rows, and two recipes on a ladder."""
    found: list[dict[str, str]] = []
    monkeypatch.setattr(ledger, "rows", lambda: found)
    monkeypatch.setattr(recipes, "names", lambda: list(EXPECT))
    monkeypatch.setattr(recipes, "expectation", EXPECT.get)
    return found


def columns() -> dict:
    return {axes.get_xlabel().split()[0]: axes for axes in ladder.draw("mnist").axes}


def test_parameters_are_a_column_where_they_differ(rows):
    rows += [row("mnist/first", 0, 0.992, 6_379_786), row("mnist/second", 0, 0.985, 194_884)]
    found = columns()
    assert list(found) == ["test", "parameters"]
    assert [text.get_text().replace("\u202f", " ") for text in found["parameters"].texts] == ["6 379 786", "194 884"]
    assert [line.get_xdata()[0] for line in found["parameters"].lines] == [6_379_786, 194_884]
    low, high = found["parameters"].get_xlim()
    assert low < 194_884 < 6_379_786 < high
    rows[:] = [row("mnist/first", 0, 0.992, 5), row("mnist/second", 0, 0.985, 5)]
    assert list(columns()) == ["test"]


def test_the_gap_is_the_mean_over_seeds_of_training_minus_validation(rows):
    rows += [row("mnist/first", seed, 0.992, 7, train=str(0.998 + seed / 1000), val="0.99") for seed in (0, 1)]
    rows += [row("mnist/second", 0, 0.985, 7, train="0.98", val="0.9825"), row("mnist/second", 1, 0.985, 7)]
    found = columns()
    assert list(found) == ["test", "train"]
    assert [bar.get_width() for bar in found["train"].patches] == pytest.approx([0.85, -0.25])
    assert [text.get_text() for text in found["train"].texts] == ["+0.85", "\N{MINUS SIGN}0.25"]
    assert [bar.get_y() + bar.get_height() / 2 for bar in found["train"].patches] == [0, 1]


def test_a_rung_whose_gap_is_not_known_has_no_bar(rows):
    rows += [row("mnist/first", 0, 0.992, 7), row("mnist/second", 0, 0.985, 7, train="0.98", val="0.98")]
    bars = columns()["train"].patches
    assert [(bar.get_width(), bar.get_y() + bar.get_height() / 2) for bar in bars] == [(0, 1)]


def test_targets_and_results_are_within_the_axes_but_those_far_below(rows, monkeypatch):
    rows += [row("mnist/first", 0, 0.9921, 7), row("mnist/second", 0, 0.9922, 7)]
    low, high = columns()["test"].get_xlim()
    assert 96 < low < 97  # the target of the second
    assert 99.22 < high < 101
    assert "99.21" in [text.get_text() for text in columns()["test"].texts]  # near 100 per cent, two decimals
    monkeypatch.setitem(EXPECT, "mnist/second", recipes.Expect("test/acc", at_least=0.1, rung=2))
    assert columns()["test"].get_xlim()[0] > 90


def test_rungs_have_their_names_beside_them(rows):
    rows += [row("mnist/second", 0, 0.985, 7)]
    assert [label.get_text().split() for label in columns()["test"].get_yticklabels()] == [["light", "second"]]
