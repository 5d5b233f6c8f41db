"""Text: tokens and back without loss, every window where it should be, resumable, and errors that say what to do."""

import hashlib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from datamodules.io import read_text
from datamodules.text import text as text_module
from datamodules.text import tokenizers as tokenisers
from datamodules.text.text import SHAKESPEARE, Text, Tiles, Windows
from datamodules.text.tokenizers import encode, train_tokenizer
from helpers import quiet_trainer, record, verse


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tokenisers.cache_folder()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "verse.txt").write_text(verse(400), encoding="utf-8")
    return tmp_path / "verse.txt"


# Tokenisers


@settings(max_examples=50, deadline=None)
@given(st.text(min_size=1).filter(str.strip))
def test_characters_lose_nothing_and_are_in_order(text):
    tokenizer = train_tokenizer(text, "characters")
    ids = encode(tokenizer, text)
    letters = sorted(set(text))
    assert ids.dtype == torch.int64
    assert ids.tolist() == [letters.index(c) for c in text]
    assert tokenizer.decode(ids.tolist()) == text
    assert tokenizer.get_vocab_size() == len(letters)


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_bpe_of_one_text_writes_any_other(text):
    tokenizer = Tokenizer.from_str(BPE)
    assert tokenizer.decode(encode(tokenizer, text).tolist()) == text


BPE = train_tokenizer(verse(400), "bpe", 300).to_str()


def test_bpe_merges_what_is_common():
    tokenizer = train_tokenizer(verse(400), "bpe", 300)
    assert tokenizer.get_vocab_size() == 300
    assert len(encode(tokenizer, verse(400))) < 0.5 * len(verse(400))


@pytest.mark.parametrize("kind", tokenisers.KINDS)
def test_special_tokens_come_first_and_all_fits_into_a_string(kind):
    special = ("[PAD]", "[MASK]")
    tokenizer = train_tokenizer(verse(400), kind, 300, special_tokens=special)
    assert [tokenizer.id_to_token(i) for i in range(2)] == list(special)
    again = Tokenizer.from_str(tokenizer.to_str())
    assert encode(again, "to be").tolist() == encode(tokenizer, "to be").tolist()
    assert tokenizer.encode("be[MASK]to").ids.count(1) == 1
    assert min(encode(tokenizer, "to be")) >= 2


@pytest.mark.parametrize("kind", ["wordpiece", "words"])
def test_words_unknown_are_marked_and_case_is_ignored(kind):
    tokenizer = train_tokenizer("To be, or not.", kind, 40)
    unknown = tokenizer.token_to_id("[UNK]")
    assert unknown in encode(tokenizer, "to žž").tolist()
    assert encode(tokenizer, "TO BE").tolist() == encode(tokenizer, "to  be\n").tolist()
    assert unknown not in encode(tokenizer, "not to be, or.").tolist()


def test_words_are_whole():
    assert train_tokenizer("a red square, a RED circle", "words").get_vocab_size() == 6  # [UNK] , a red square circle


def test_trained_tokenisers_are_kept_by_what_they_were_made_of(cache, monkeypatch):
    first = train_tokenizer(verse(400), "bpe", 300, cache_dir=cache)
    (kept,) = cache.iterdir()
    monkeypatch.setattr(tokenisers, "_trained", lambda *_: pytest.fail("trained again"))
    assert train_tokenizer(verse(400), "bpe", 300, cache_dir=cache).to_str() == first.to_str()
    monkeypatch.undo()
    for text, kind, size in ((verse(300), "bpe", 300), (verse(400), "wordpiece", 300), (verse(400), "bpe", 301)):
        assert train_tokenizer(text, kind, size, cache_dir=cache).to_str() != first.to_str()
    assert len(list(cache.iterdir())) == 4
    kept.write_text(kept.read_text()[:100])
    assert train_tokenizer(verse(400), "bpe", 300, cache_dir=cache).to_str() == first.to_str()
    assert Tokenizer.from_file(str(kept)).to_str() == first.to_str(), "mended"
    train_tokenizer(verse(400), "bpe", 300, cache_dir=kept / "not a folder")  # no place to keep it: no matter


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: train_tokenizer("a", "letters"), "tokenizer is 'letters': expected one of characters, bpe"),
        (lambda: train_tokenizer(" \n", "bpe"), "text is empty"),
        (lambda: train_tokenizer(verse(400), "bpe", 200), "vocab_size is 200, but bpe needs 256 tokens for single"),
        (lambda: encode(train_tokenizer("abc"), "abé"), r"character 'é' \(U\+00E9\) is unknown .* among 'abc'"),
    ],
)
def test_tokenisers_say_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Windows


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.integers(1, 12), st.integers(0, 3), st.integers(1, 40))
def test_windows_are_pieces_of_the_text_and_a_pass_has_no_token_twice(n, context, seed, count):
    context = min(context, n - 1)
    ids = torch.arange(n) * 3
    passes = Windows(ids, context, seed=seed)
    batch = passes.__getitems__(torch.arange(len(passes)))
    assert torch.equal(batch.labels, batch.input_ids + 3)
    assert len(batch.labels.unique()) == batch.labels.numel()
    assert n - 1 - batch.labels.numel() < 2 * context  # what falls off at the ends
    # Epochs of any length run through the same passes.
    cut, drawn = Windows(ids, context, count, seed), []
    for epoch in range(-(-2 * len(passes) // count)):
        cut.set_epoch(epoch)
        assert len(cut) == count
        drawn.append(cut.starts)
    whole = []
    for epoch in (0, 1):
        passes.set_epoch(epoch)
        whole.append(passes.starts)
    assert torch.equal(torch.cat(drawn)[: 2 * len(passes)], torch.cat(whole))


def test_windows_differ_by_pass_and_seed_and_begin_anywhere():
    ids = torch.arange(1000)

    def starts(seed: int, epoch: int) -> list[int]:
        windows = Windows(ids, 10, seed=seed)
        windows.set_epoch(epoch)
        return windows.starts.tolist()

    draws = [starts(seed, epoch) for seed in (0, 1) for epoch in range(40)]
    assert len({tuple(draw) for draw in draws}) == 80
    assert {draw[0] % 10 for draw in draws} == set(range(10))
    assert min(map(min, draws)) == 0
    assert max(map(max, draws)) == 989


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.integers(1, 70))
def test_tiles_ask_for_every_token_but_the_first_once(n, context):
    ids = torch.arange(100, 100 + n)
    tiles = Tiles(ids, context)
    batch = tiles.__getitems__(torch.arange(len(tiles)))
    asked = batch.labels != -100
    assert batch.labels[asked].tolist() == ids[1:].tolist()
    assert torch.equal(batch.input_ids[asked] + 1, batch.labels[asked])
    assert batch.input_ids.shape == batch.labels.shape == (-(-(n - 1) // context), context)


# The datamodule


def test_the_last_tenth_of_the_characters_is_for_validation(file):
    data = Text(str(file), context=16)
    everything = file.read_text()
    assert data.vocab_size == len(set(everything))
    train, val = (data.tokenizer.decode(data.ids[part].tolist()) for part in ("train", "val"))
    assert train + val == everything
    assert len(train) == int(0.9 * len(everything))


def test_bpe_is_trained_on_the_training_part_only(file):
    file.write_text(verse(400) + "zqzqzqzq" * 30)
    data = Text(str(file), context=16, tokenizer="bpe", vocab_size=300)
    assert data.vocab_size == 300
    assert not [token for token in data.tokenizer.get_vocab() if "zq" in token]


def test_loaders_yield_tokens_and_a_resumed_run_sees_what_is_left(file):
    def module():
        return Text(str(file), context=8, batch_size=4, eval_batch_size=5, epoch_windows=40, seed=3)

    seen = record(module(), max_epochs=2).seen
    assert len(seen["train"]) == 20
    assert seen["train"][0].input_ids.shape == (4, 8)
    asked = torch.cat([batch.labels[batch.labels != -100] for batch in seen["val"][: len(seen["val"]) // 2]])
    assert asked.tolist() != []
    assert len(asked) == len(module().ids["val"]) - 1
    assert len({tuple(row) for batch in seen["train"] for row in batch.input_ids.tolist()}) > 70
    data = module()
    data.trainer = quiet_trainer()
    data.setup("fit")
    loader = data.train_dataloader()
    loader.load_state_dict({"epoch": 1, "position": 7})
    left = list(loader)
    assert len(left) == 3
    for found, expected in zip(left, seen["train"][17:], strict=True):
        assert torch.equal(found.input_ids, expected.input_ids)


def test_validation_serves_as_test(file):
    data = Text(str(file), context=8)
    data.setup("test")
    data.watch_test = True
    assert data.val_dataloader().keys() == {"val"}
    assert len(data.test_dataloader()) == len(data.val_dataloader()["val"])


def test_the_card_holds_the_tokeniser(file):
    data = Text(str(file), context=8)
    assert Tokenizer.from_str(data.metadata()["tokenizer"]).encode("to be").ids == data.tokenizer.encode("to be").ids


def test_files_are_found_here_and_below_the_data_folder(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_text("verse.txt", Path("nowhere")) == verse(400)
    monkeypatch.chdir("/")
    assert read_text("verse.txt", tmp_path) == verse(400)
    file.write_bytes(b"\xef\xbb\xbfto be\r\n")
    assert read_text(str(file), tmp_path) == "to be\r\n"  # without the mark, and nothing else changed


def test_shakespeare_is_downloaded_if_it_is_not_there(tmp_path, monkeypatch):
    def download(url, folder, name):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("to be")

    monkeypatch.setattr(text_module, "download_url", download)
    with pytest.raises(FileNotFoundError, match=r"expected md5 .* Remedies"):  # that is not all of it
        read_text(SHAKESPEARE, tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(text_module, "MD5", hashlib.md5(b"to be").hexdigest())
    assert read_text(SHAKESPEARE, tmp_path) == "to be"


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"", {}, r"holds no text \(0 bytes\)"),
        (b" \n\n", {}, r"holds no text \(3 bytes\)"),
        (b"to be \xff or", {}, r"no UTF-8: byte 0xff at offset 6 .*iconv"),
        (
            b"to be or not to be",
            {"context": 16},
            "16 tokens to train on and 2 for validation: .* more than the context",
        ),
        (verse(400).encode(), {"context": 0}, "context is 0: expected 1 or more"),
        (verse(400).encode(), {"epoch_windows": 0}, "epoch_windows is 0: expected 1 or more"),
        (verse(400).encode(), {"tokenizer": "letters"}, "tokenizer is 'letters': expected one of"),
        (verse(400).encode(), {"tokenizer": "bpe", "vocab_size": 10}, "vocab_size is 10, but bpe needs 256"),
    ],
)
def test_texts_that_will_not_do(file, content, options, message):
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        Text(str(file), **options)


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.txt is neither here nor under .*ZOO_DATA"):
        Text("absent.txt", data_dir=str(tmp_path))
