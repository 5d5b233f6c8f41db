"""Text: tokenizers are lossless, windows cover the text, runs are resumable, and errors name the remedy."""

import hashlib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from datamodules.io import read_text
from datamodules.text import text as text_module
from datamodules.text import tokenizers as tokenizers_module
from datamodules.text.text import SHAKESPEARE, Text, Tiles, Windows, find_text
from datamodules.text.tokenizers import encode, train_tokenizer
from helpers import quiet_trainer, record, verse


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tokenizers_module.cache_folder()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "verse.txt").write_text(verse(400), encoding="utf-8")
    return tmp_path / "verse.txt"


# Tokenizers


@settings(max_examples=50, deadline=None)
@given(st.text(min_size=1).filter(str.strip))
def test_characters_are_lossless_and_in_order(text):
    tokenizer = train_tokenizer(text, "characters")
    ids = encode(tokenizer, text)
    letters = sorted(set(text))
    assert ids.dtype == torch.int64
    assert ids.tolist() == [letters.index(c) for c in text]
    assert tokenizer.decode(ids.tolist()) == text
    assert tokenizer.get_vocab_size() == len(letters)


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_bpe_of_one_text_is_lossless_on_any_other(text):
    tokenizer = Tokenizer.from_str(BPE)
    assert tokenizer.decode(encode(tokenizer, text).tolist()) == text


BPE = train_tokenizer(verse(400), "bpe", 300).to_str()


def test_bpe_merges_common_pairs():
    tokenizer = train_tokenizer(verse(400), "bpe", 300)
    assert tokenizer.get_vocab_size() == 300
    assert len(encode(tokenizer, verse(400))) < 0.5 * len(verse(400))


@pytest.mark.parametrize("kind", tokenizers_module.KINDS)
def test_special_tokens_come_first_and_a_string_restores_the_tokenizer(kind):
    special = ("[PAD]", "[MASK]")
    tokenizer = train_tokenizer(verse(400), kind, 300, special_tokens=special)
    assert [tokenizer.id_to_token(i) for i in range(2)] == list(special)
    again = Tokenizer.from_str(tokenizer.to_str())
    assert encode(again, "to be").tolist() == encode(tokenizer, "to be").tolist()
    assert tokenizer.encode("be[MASK]to").ids.count(1) == 1
    assert min(encode(tokenizer, "to be")) >= 2


@pytest.mark.parametrize("kind", ["wordpiece", "words"])
def test_unknown_words_become_unk_and_case_is_ignored(kind):
    tokenizer = train_tokenizer("To be, or not.", kind, 40)
    unknown = tokenizer.token_to_id("[UNK]")
    assert unknown in encode(tokenizer, "to žž").tolist()
    assert encode(tokenizer, "TO BE").tolist() == encode(tokenizer, "to  be\n").tolist()
    assert unknown not in encode(tokenizer, "not to be, or.").tolist()


def test_words_are_not_cut():
    assert train_tokenizer("a red square, a RED circle", "words").get_vocab_size() == 6  # [UNK] , a red square circle


def test_trained_tokenizers_are_cached_by_their_arguments(cache, monkeypatch):
    first = train_tokenizer(verse(400), "bpe", 300, cache_dir=cache)
    (cached,) = cache.iterdir()
    monkeypatch.setattr(tokenizers_module, "_trained", lambda *_: pytest.fail("trained again"))
    assert train_tokenizer(verse(400), "bpe", 300, cache_dir=cache).to_str() == first.to_str()
    monkeypatch.undo()
    for text, kind, size in ((verse(300), "bpe", 300), (verse(400), "wordpiece", 300), (verse(400), "bpe", 301)):
        assert train_tokenizer(text, kind, size, cache_dir=cache).to_str() != first.to_str()
    assert len(list(cache.iterdir())) == 4
    cached.write_text(cached.read_text()[:100])
    assert train_tokenizer(verse(400), "bpe", 300, cache_dir=cache).to_str() == first.to_str()
    assert Tokenizer.from_file(str(cached)).to_str() == first.to_str(), "the damaged file is replaced"
    train_tokenizer(verse(400), "bpe", 300, cache_dir=cached / "not a folder")  # then it is only not cached


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: train_tokenizer("a", "letters"), "tokenizer is 'letters': expected one of characters, bpe"),
        (lambda: train_tokenizer(" \n", "bpe"), "text is empty"),
        (lambda: train_tokenizer(verse(400), "bpe", 200), "vocab_size is 200, but bpe needs 256 tokens for single"),
        (lambda: encode(train_tokenizer("abc"), "abé"), r"character 'é' \(U\+00E9\) is unknown .* among 'abc'"),
    ],
)
def test_bad_input_of_tokenizers_is_a_clear_error(call, message):
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
    assert n - 1 - batch.labels.numel() < 2 * context  # the part that is left out at the ends
    # Epochs of any length go through the same passes.
    cut, drawn = Windows(ids, context, count, seed), []
    for epoch in range(-(-2 * len(passes) // count)):
        cut.set_epoch(epoch)
        assert len(cut) == count
        drawn.append(cut.starts)
    complete = []
    for epoch in (0, 1):
        passes.set_epoch(epoch)
        complete.append(passes.starts)
    assert torch.equal(torch.cat(drawn)[: 2 * len(passes)], torch.cat(complete))


def test_windows_differ_by_pass_and_seed_and_start_anywhere():
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
def test_tiles_predict_every_token_except_the_first_once(n, context):
    ids = torch.arange(100, 100 + n)
    tiles = Tiles(ids, context)
    batch = tiles.__getitems__(torch.arange(len(tiles)))
    has_label = batch.labels != -100
    assert batch.labels[has_label].tolist() == ids[1:].tolist()
    assert torch.equal(batch.input_ids[has_label] + 1, batch.labels[has_label])
    assert batch.input_ids.shape == batch.labels.shape == (-(-(n - 1) // context), context)


# The datamodule


def test_the_last_tenth_of_the_characters_is_for_validation(file):
    data = Text(str(file), context=16)
    everything = file.read_text()
    assert data.vocab_size == len(set(everything))
    train, val = (data.tokenizer.decode(data.ids[part][:].tolist()) for part in ("train", "val"))
    assert train + val == everything
    assert len(train) == int(0.9 * len(everything))


def test_bpe_is_trained_on_the_training_part_only(file):
    file.write_text(verse(400) + "zqzqzqzq" * 30)
    data = Text(str(file), context=16, tokenizer="bpe", vocab_size=300)
    assert data.vocab_size == 300
    assert not [token for token in data.tokenizer.get_vocab() if "zq" in token]


def test_loaders_yield_tokens_and_a_resumed_run_sees_the_rest(file):
    def module():
        return Text(str(file), context=8, batch_size=4, eval_batch_size=5, epoch_windows=40, seed=3)

    seen = record(module(), max_epochs=2).seen
    assert len(seen["train"]) == 20
    assert seen["train"][0].input_ids.shape == (4, 8)
    labels = torch.cat([batch.labels[batch.labels != -100] for batch in seen["val"][: len(seen["val"]) // 2]])
    assert labels.tolist() != []
    assert len(labels) == len(module().ids["val"]) - 1
    assert len({tuple(row) for batch in seen["train"] for row in batch.input_ids.tolist()}) > 70
    data = module()
    data.trainer = quiet_trainer()
    data.setup("fit")
    loader = data.train_dataloader()
    loader.load_state_dict({"epoch": 1, "position": 7})
    rest = list(loader)
    assert len(rest) == 3
    for found, expected in zip(rest, seen["train"][17:], strict=True):
        assert torch.equal(found.input_ids, expected.input_ids)


def test_validation_serves_as_test(file):
    data = Text(str(file), context=8)
    data.setup("test")
    data.watch_test = True
    assert data.val_dataloader().keys() == {"val"}
    assert len(data.test_dataloader()) == len(data.val_dataloader()["val"])


def test_the_metadata_restore_the_tokenizer(file):
    data = Text(str(file), context=8)
    assert Tokenizer.from_str(data.metadata()["tokenizer"]).encode("to be").ids == data.tokenizer.encode("to be").ids


def test_files_are_found_here_and_in_the_data_folder(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_text(find_text("verse.txt", Path("nowhere"))) == verse(400)
    monkeypatch.chdir("/")
    assert read_text(find_text("verse.txt", tmp_path)) == verse(400)
    file.write_bytes(b"\xef\xbb\xbfto be\r\n")
    assert read_text(find_text(str(file), tmp_path)) == "to be\r\n"  # without the mark, and not changed otherwise


def test_shakespeare_is_downloaded_only_if_it_does_not_exist(tmp_path, monkeypatch):
    def download(url, folder, name):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("to be")

    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    monkeypatch.setattr(text_module, "download_url", download)
    with pytest.raises(FileNotFoundError, match=r"expected md5 .* Remedies"):  # the download is incomplete
        find_text(SHAKESPEARE, data)
    assert not list(data.iterdir())
    monkeypatch.setattr(text_module, "SHAKESPEARE_MD5", hashlib.md5(b"to be").hexdigest())
    assert read_text(find_text(SHAKESPEARE, data)) == "to be"
    monkeypatch.setattr(text_module, "download_url", lambda *_: pytest.fail("downloaded again"))
    (data / SHAKESPEARE).write_text("not to be")  # an existing file is used, whatever its content
    assert read_text(find_text(SHAKESPEARE, data)) == "not to be"
    (tmp_path / SHAKESPEARE).parent.mkdir()
    (tmp_path / SHAKESPEARE).write_text("here")
    assert read_text(find_text(SHAKESPEARE, data)) == "here"


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"", {}, r"contains no text \(0 bytes\)"),
        (b" \n\n", {}, r"contains no text \(3 bytes\)"),
        (b"to be \xff or", {}, r"not UTF-8: byte 0xff at offset 6 .*iconv"),
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
def test_an_unusable_text_is_a_clear_error(file, content, options, message):
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        Text(str(file), **options)


def test_a_folder_or_a_missing_file_is_a_clear_error(tmp_path):
    with pytest.raises(ValueError, match="is a folder: expected a UTF-8 text file"):
        Text(str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"absent\.txt does not exist, neither here nor in .*ZOO_DATA"):
        Text("absent.txt", data_dir=str(tmp_path))
