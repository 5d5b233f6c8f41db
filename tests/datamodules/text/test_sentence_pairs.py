"""Masked tokens and pairs of segments: their shares, labels and sources; fixed in validation, new in each epoch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from datamodules.text.sentence_pairs import SPECIAL_TOKENS, Pairs, SentencePairs, mask_tokens, pair_up
from helpers import record

WORDS = ("the", "king", "and", "his", "fool", "shall", "not", "come", "to", "you", "my", "lord", "night", "is", "sir")


def play(words: int = 3000) -> str:
    """Lines of random words."""
    draw = np.random.default_rng(0)
    return "\n".join(" ".join(draw.choice(WORDS, 7)) for _ in range(words // 7))


@pytest.fixture(autouse=True)
def _no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "play.txt"
    path.write_text(play(), encoding="utf-8")
    return path


def data_of(path, **options) -> SentencePairs:
    data = SentencePairs(**({"file": str(path), "segment": 8, "vocab_size": 300, "batch_size": 4} | options))
    data.setup("fit")
    return data


def pairs_of(count: int = 5000, segment: int = 8, **options) -> Pairs:
    """Pairs of a text whose tokens are their positions, counted from 4."""
    return Pairs(torch.arange(4, count + 4), [0, 1, 2, 3], count + 4, segment, **options)


def all_items(pairs: Pairs):
    return pairs.__getitems__(torch.arange(len(pairs)))


def unmasked(batch) -> torch.Tensor:
    return batch.input_ids.where(batch.labels == -100, batch.labels)


def parts(batch, row: int) -> tuple[list[int], list[int]]:
    """The two segments of a row, without the special tokens."""
    tokens = unmasked(batch)[row][batch.attention_mask[row]].tolist()
    assert (tokens[0], tokens[-1], tokens.count(2)) == (1, 2, 2)
    border = tokens.index(2)
    assert batch.token_type_ids[row].tolist()[: len(tokens)] == [0] * (border + 1) + [1] * (len(tokens) - border - 1)
    return tokens[1:border], tokens[border + 1 : -1]


# Masks


def test_15_percent_are_chosen_of_which_80_are_masked_10_replaced_and_10_kept():
    tokens = torch.randint(4, 500, (2000, 128), generator=torch.Generator().manual_seed(0))
    special = torch.arange(500) < 4
    inputs, labels = mask_tokens(tokens, special, 3, torch.rand(3, 2000, 128, generator=torch.manual_seed(1)))
    chosen = labels != -100
    assert chosen.float().mean().item() == pytest.approx(0.15, abs=0.003)  # four standard deviations
    masked, kept = inputs[chosen] == 3, inputs[chosen] == tokens[chosen]
    assert masked.float().mean().item() == pytest.approx(0.8, abs=0.009)
    assert kept.float().mean().item() == pytest.approx(0.1 + 0.1 / 496, abs=0.007)
    assert torch.equal(inputs[~chosen], tokens[~chosen])
    assert torch.equal(labels[chosen], tokens[chosen])
    replaced = inputs[chosen][~masked & ~kept]
    assert replaced.min() >= 4
    assert len(replaced.unique()) > 480  # any ordinary token


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(3, 40), st.floats(0.01, 0.99))
def test_special_tokens_are_neither_masked_nor_used_as_replacements(seed, rows, length, share):
    draw = torch.Generator().manual_seed(seed)
    special = torch.rand(30, generator=draw) < 0.5
    special[0], special[3] = False, True
    tokens = torch.randint(30, (rows, length), generator=draw)
    inputs, labels = mask_tokens(tokens, special, 3, torch.rand(3, rows, length, generator=draw), share)
    chosen = labels != -100
    assert not (chosen & special[tokens]).any()
    assert torch.equal(inputs[~chosen], tokens[~chosen])
    assert not special[inputs[chosen & (inputs != 3)]].any()
    assert torch.equal(chosen.any(1), (~special[tokens]).any(1))  # at least one in each row that has one


def test_labels_are_ordinary_tokens_and_never_padding(text):
    data = data_of(text)
    batch = next(iter(data.train_dataloader()))
    special = [data.tokenizer.token_to_id(token) for token in SPECIAL_TOKENS]
    chosen = batch.labels != -100
    assert chosen.any()
    assert not torch.isin(batch.labels[chosen], torch.tensor(special)).any()
    assert not (chosen & ~batch.attention_mask).any()


# Pairs


@given(st.integers(4, 200), st.integers(0, 2**31))
def test_half_of_the_pairs_exchange_their_second_segments_in_one_cycle(count, seed):
    together, source = pair_up(count, torch.Generator().manual_seed(seed))
    assert together.sum() == count - count // 2
    assert torch.equal(source == torch.arange(count), together.bool())
    assert torch.equal(source.sort().values, torch.arange(count))


@pytest.mark.parametrize("train", [True, False])
def test_a_second_segment_follows_the_first_exactly_where_the_label_is_1(train):
    batch = all_items(pairs_of(train=train))
    for row, label in enumerate(batch.next_label.tolist()):
        first, second = parts(batch, row)
        assert all(np.diff(first) == 1)
        assert all(np.diff(second) == 1)
        assert (second[0] == first[-1] + 1) == bool(label)
    assert batch.next_label.float().mean().item() == pytest.approx(0.5, abs=0.01)


def test_with_order_the_label_is_0_where_two_neighbors_are_swapped():
    batch = all_items(pairs_of(pairs="order"))
    for row, label in enumerate(batch.next_label.tolist()):
        first, second = parts(batch, row)
        assert (second[0] == first[-1] + 1) if label else (first[0] == second[-1] + 1)
    assert batch.next_label.float().mean().item() == pytest.approx(0.5, abs=0.01)


@settings(max_examples=30, deadline=None)
@given(st.integers(49, 400))
def test_validation_contains_the_complete_text_once_in_segments_of_nearly_equal_length(count):
    batch = all_items(pairs_of(count, train=False))
    segments = [part for row in range(len(batch.labels)) for part in parts(batch, row)]
    assert sorted(token for segment in segments for token in segment) == list(range(4, count + 4))
    lengths = {len(segment) for segment in segments}
    assert max(lengths) <= 8
    assert max(lengths) - min(lengths) <= 1


def test_short_epochs_have_more_rows_of_shorter_segments():
    pairs = pairs_of(short=2, short_epochs=1)
    short = pairs.__getitems__(torch.tensor([3, 1]))
    pairs.set_epoch(1)
    full = pairs.__getitems__(torch.tensor([3, 1]))
    assert short.input_ids.shape == (8, 7)
    assert full.input_ids.shape == (2, 19)
    assert all(len(part) == 2 for row in range(8) for part in parts(short, row))
    for row, label in enumerate(short.next_label.tolist()):
        first, second = parts(short, row)
        assert (second[0] == first[-1] + 1) == bool(label)


# Determinism


def test_masks_are_a_function_of_seed_epoch_and_index_not_of_the_batch():
    one, other = pairs_of(seed=3), pairs_of(seed=3)
    torch.manual_seed(7)
    alone, among = one.__getitems__(torch.tensor([5])), other.__getitems__(torch.tensor([9, 5, 2]))
    assert torch.equal(alone.input_ids[0], among.input_ids[1])
    for changed in (pairs_of(seed=4), other):
        changed.set_epoch(1 if changed is other else 0)
        again = changed.__getitems__(torch.tensor([5]))
        assert not torch.equal(again.labels != -100, alone.labels != -100), "other positions, not only other tokens"
    other.set_epoch(0)
    assert torch.equal(other.__getitems__(torch.tensor([5])).labels, alone.labels)


def test_validation_is_the_same_in_each_epoch_and_for_each_seed():
    first, second = all_items(pairs_of(train=False, seed=0)), pairs_of(train=False, seed=5)
    second.set_epoch(3)
    assert all(torch.equal(a, b) for a, b in zip(first, all_items(second), strict=True))


def test_training_differs_in_each_epoch_and_validation_does_not(text):
    seen = record(data_of(text, seed=1), max_epochs=2).seen
    train, val = ([unmasked(batch) for batch in seen[split]] for split in ("train", "val"))
    half = len(train) // 2
    assert not any(torch.equal(a, b) for a, b in zip(train[:half], train[half:], strict=True))
    half = len(val) // 2
    assert all(torch.equal(a, b) for a, b in zip(val[:half], val[half:], strict=True))


def test_the_metadata_restore_the_tokenizer(text):
    data = data_of(text)
    again = Tokenizer.from_str(data.metadata()["tokenizer"])
    assert again.encode("the king").ids == data.tokenizer.encode("the king").ids
    assert data.vocab_size == again.get_vocab_size() <= 300
    assert data.context == 19


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_special_tokens_written_in_the_text_are_encoded_as_ordinary_ones(tmp_path, kind):
    path = tmp_path / "odd.txt"
    path.write_text(play() + " [MASK] [PAD] " * 300, encoding="utf-8")
    data = data_of(path, tokenizer=kind)
    special = torch.tensor([data.tokenizer.token_to_id(token) for token in SPECIAL_TOKENS])
    assert not any(torch.isin(ids[:], special).any() for ids in data.ids.values())
    row = data.datasets["val"].__getitems__(torch.tensor([0]))
    assert unmasked(row)[0, 0] == special[1]


# Bad input


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "contains no text"),
        (b"  \n", "contains no text"),
        ("kräftig".encode("latin-1") * 99, "is not UTF-8"),
        (b"to be or not to be", r"has 6 tokens to train on .* expected more than the context of 35"),
        (b"to be or not to be" * 60, r"tokens to validate on: expected 97 or more, for 4 pairs of segments of 16"),
    ],
)
def test_an_unusable_text_is_one_clear_error(tmp_path, content, message):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        data_of(path, segment=16)
    assert "\n" not in str(error.value)


def test_a_missing_text_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.txt"):
        data_of(tmp_path / "nothing.txt", data_dir=str(tmp_path))


@pytest.mark.parametrize(
    "options",
    [
        {"segment": 0},
        {"mask": 0.0},
        {"mask": 1.0},
        {"pairs": "both"},
        {"vocab_size": 259},
        {"short": 3, "short_epochs": 1},
        {"short": 0},
    ],
)
def test_options_out_of_range_are_errors(text, options):
    name = next(iter(options))
    with pytest.raises(ValueError, match=f"{name} (is )?{options[name]!r}.*expected"):
        data_of(text, **options)
