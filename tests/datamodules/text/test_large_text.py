"""Texts of any size: what is made of pieces is what is made of the whole, in little memory, and kept safely."""

import gc
import json
import multiprocessing
import os
import pickle
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.text import corpus as corpus_module
from datamodules.text import ids as ids_module
from datamodules.text.corpus import Corpus, cut_at_words
from datamodules.text.ids import FOOTER, Ids, encode_parts, open_ids
from datamodules.text.text import Text
from datamodules.text.tokenizers import Lines, cache_folder, encode, train_tokenizer
from helpers import verse

KINDS = ("characters", "bpe", "wordpiece")
# White space of all kinds, marks that belong to the letter before them, and what normalization changes.
ODD = st.text(
    st.sampled_from("ab Z.'s1\n\r\t\x0b\x1c\x85\xa0\u2028\u3000é\u0301Σß中\u200b\U0001f600[UNK]"), max_size=60
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All texts count as large."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(ids_module, "SMALL", 0)
    return cache_folder("texts")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "verse.txt").write_text(verse(2000) + "žluťoučký kůň 中文\n" * 20, encoding="utf-8")
    return tmp_path / "verse.txt"


@pytest.fixture(scope="module")
def trained() -> dict:
    text = verse(400) + "ab Z.'s1 é Σß 中 ab ab'sab Za Z.Z. 1.11 ab1\n" * 9
    return {kind: train_tokenizer(text, kind, 330) for kind in ("bpe", "wordpiece", "words")}


# In pieces


@settings(max_examples=60, deadline=None)
@given(ODD, st.integers(1, 9), st.data())
def test_pieces_lines_and_letters_are_those_of_the_text(tmp_path_factory, text, piece, data):
    path = tmp_path_factory.mktemp("text") / "a.txt"
    mark = data.draw(st.sampled_from(["", "\ufeff"]))
    path.write_bytes(f"{mark}x{text}".encode())
    text = f"x{text}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_module, "PIECE", piece)
        corpus = Corpus(path)
        assert (corpus.num_chars, corpus.size) == (len(text), path.stat().st_size)
        assert corpus.alphabet == "".join(sorted(set(text)))
        start = data.draw(st.integers(0, len(text)))
        stop = data.draw(st.integers(start, len(text)))
        assert "".join(corpus.pieces(start, stop, size=data.draw(st.integers(1, 9)))) == text[start:stop]
        patch.setattr(corpus_module, "PIECE", max(piece, 70))  # longer than a line
        assert list(corpus.lines(start, stop)) == text[start:stop].splitlines(keepends=True)


@settings(max_examples=200, deadline=None)
@given(st.lists(ODD, max_size=5), st.integers(1, 12), st.sampled_from(["bpe", "wordpiece", "words"]))
def test_tokens_of_pieces_are_those_of_the_text(trained, pieces, size, kind):
    tokenizer, text = trained[kind], "".join(pieces)
    cut = list(cut_at_words(pieces, size))
    assert "".join(cut) == text
    assert all(len(piece) >= size for piece in cut[:-1])
    assert [i for piece in cut for i in encode(tokenizer, piece).tolist()] == encode(tokenizer, text).tolist()


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_a_tokenizer_learns_the_same_from_a_file_and_each_time(file, kind, monkeypatch):
    text = file.read_text(encoding="utf-8")
    whole = train_tokenizer(text, kind, 400).to_str()
    monkeypatch.setattr(corpus_module, "PIECE", 100)
    assert train_tokenizer(Lines("", Corpus(file).lines), kind, 400).to_str() == whole
    file.write_text(text.replace("\n", " "), encoding="utf-8")  # a single line, which is cut at words
    in_parts = list(Corpus(file).lines())
    assert max(map(len, in_parts)) < 250 < len(text)
    one_line = train_tokenizer(text.replace("\n", " "), kind, 400).to_str()
    assert train_tokenizer(Lines("", lambda: in_parts), kind, 400).to_str() == one_line


@pytest.mark.parametrize("content", [b"ab\xff", b"abc\xc3", "aé".encode() * 3 + b"\xe4\xb8", b"\xef\xbb\xbfabcdef\x80"])
@pytest.mark.parametrize("piece", [1, 2, 5, 100])
def test_the_byte_that_is_not_utf_8_is_named_wherever_the_pieces_end(tmp_path, content, piece, monkeypatch):
    monkeypatch.setattr(corpus_module, "PIECE", piece)
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UnicodeDecodeError) as theirs:
        content.decode()
    start = theirs.value.start
    with pytest.raises(ValueError, match=rf"not UTF-8: byte 0x{content[start]:02x} at offset {start} ") as ours:
        Corpus(tmp_path / "a.txt")
    assert theirs.value.reason in str(ours.value)


def test_a_file_that_changes_while_it_is_read_is_refused(file):
    corpus = Corpus(file)
    file.write_text(file.read_text(encoding="utf-8") + "more", encoding="utf-8")
    with pytest.raises(ValueError, match=r"verse\.txt was changed while it was read"):
        list(corpus.pieces())


# What is kept


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_kept_in_a_file_are_those_in_memory(file, kind, monkeypatch, capfd, cache):
    def module() -> Text:
        data = Text(str(file), context=16, tokenizer=kind, vocab_size=330, batch_size=8)
        data.setup("fit")
        return data

    kept = module()
    assert "encoding" in capfd.readouterr().err
    assert all(isinstance(ids.values, np.memmap) for ids in kept.ids.values())
    assert kept.ids["train"].values.dtype == (np.uint8 if kept.vocab_size <= 256 else np.uint16)
    monkeypatch.setattr(ids_module, "_encoded", lambda *_: pytest.fail("encoded again"))
    again = module()
    assert "encoding" not in capfd.readouterr().err
    monkeypatch.undo()  # a small text
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "other"))
    held = module()
    assert not any(isinstance(ids.values, np.memmap) for ids in held.ids.values())
    text = file.read_text(encoding="utf-8")
    split = int(0.9 * len(text))
    for part, expected in (("train", text[:split]), ("val", text[split:])):
        tokens = encode(held.tokenizer, expected)
        assert all(torch.equal(data.ids[part][:], tokens) for data in (kept, again, held))
    for ours, theirs in zip(kept.train_dataloader(), held.train_dataloader(), strict=True):
        assert torch.equal(ours.input_ids, theirs.input_ids)
        assert ours.labels.dtype == torch.int64


def ids_of(file: Path) -> dict[str, Ids]:
    corpus = Corpus(file)
    return encode_parts(corpus, train_tokenizer(corpus.alphabet), "characters", corpus.num_chars // 2)


def test_another_text_split_or_tokenizer_has_its_own_file(file, cache):
    first = ids_of(file)["train"][:]
    file.write_text(file.read_text(encoding="utf-8").replace("to", "ot"), encoding="utf-8")  # of the same size
    assert not torch.equal(ids_of(file)["train"][:], first)
    corpus = Corpus(file)
    encode_parts(corpus, train_tokenizer(corpus.alphabet), "characters", 7)
    encode_parts(corpus, train_tokenizer(corpus.alphabet + "Ω"), "characters", 7)
    assert len(list(cache.glob("*.ids"))) == 4


class Runs:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("unpickled",)


def flip(content: bytes) -> bytes:
    return content[:100] + bytes([content[100] ^ 1]) + content[101:]


def with_footer(content: bytes, **changes: object) -> bytes:
    about = json.loads(content[-FOOTER:]) | changes
    return content[:-FOOTER] + json.dumps(about).ljust(FOOTER).encode()


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        lambda content: content[:-1],
        lambda content: content[5:],
        lambda content: b"",
        lambda content: content[:-FOOTER] + b"\0" * FOOTER,
        lambda content: content[:-FOOTER] + b"[1]".ljust(FOOTER),
        lambda content: with_footer(content, dtype="object"),
        lambda content: with_footer(content, train=-1),
        lambda content: with_footer(content, train="many"),
        lambda content: with_footer(content, checksum=0),
        lambda content: pickle.dumps(Runs()),
    ],
)
def test_a_file_that_is_not_as_it_was_written_is_written_again(file, cache, damage):
    expected = ids_of(file)["train"][:]
    (path,) = cache.glob("*.ids")
    original = path.read_bytes()
    path.write_bytes(damage(original))
    assert open_ids(path) is None
    assert torch.equal(ids_of(file)["train"][:], expected)
    assert path.read_bytes() == original


def test_without_a_place_to_keep_them_tokens_are_held_in_memory(file, tmp_path, monkeypatch, capfd):
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "taken"))
    ids = ids_of(file)
    assert "held in memory" in capfd.readouterr().err
    assert not isinstance(ids["train"].values, np.memmap)
    assert sum(map(len, ids.values())) == len(file.read_text(encoding="utf-8"))


def test_a_disk_that_is_full_leaves_nothing_and_does_not_stop_the_run(file, cache, monkeypatch, capfd):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ids_module, "_write", full)
    assert sum(map(len, ids_of(file).values())) == len(file.read_text(encoding="utf-8"))
    assert "No space left" in capfd.readouterr().err
    assert [path for path in cache.iterdir() if path.suffix != ".lock"] == []


def test_what_was_not_used_for_a_month_is_removed_when_another_text_is_kept(file, cache, tmp_path):
    ids_of(file)
    (old,) = cache.glob("*.ids")
    month = 31 * 86400
    os.utime(old, (old.stat().st_mtime - month,) * 2)
    ids_of(file)  # is used again
    (tmp_path / "other.txt").write_text(verse(50))
    ids_of(tmp_path / "other.txt")
    assert len(list(cache.glob("*.ids"))) == 2
    os.utime(old, (old.stat().st_mtime - month,) * 2)
    (tmp_path / "other.txt").write_text(verse(60))
    ids_of(tmp_path / "other.txt")
    assert not old.exists()
    assert len(list(cache.glob("*.ids"))) == 2


def in_a_process(file: Path, start: multiprocessing.synchronize.Barrier, results: multiprocessing.Queue) -> None:
    start.wait()
    results.put([ids[:].sum().item() for ids in ids_of(file).values()])


def test_processes_that_start_together_share_one_file(file, cache, capfd):
    fork = multiprocessing.get_context("fork")
    start, results = fork.Barrier(4), fork.Queue()
    processes = [fork.Process(target=in_a_process, args=(file, start, results)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    found = [results.get() for _ in processes]
    assert found == [[ids[:].sum().item() for ids in ids_of(file).values()]] * 4
    assert capfd.readouterr().err.count("encoding") == 1
    assert [path.suffix for path in sorted(cache.iterdir())] == [".ids", ".lock"]


def test_another_process_gets_the_place_of_the_tokens_and_not_a_copy(file):
    ids = ids_of(file)["val"]
    sent = pickle.dumps(ids)
    assert len(sent) < 1000
    assert torch.equal(pickle.loads(sent)[:], ids[:])
    small = Ids(np.arange(5, dtype=np.uint8))
    assert pickle.loads(pickle.dumps(small))[:].tolist() == [0, 1, 2, 3, 4]


def of_status(name: str) -> int:
    """A number of this process, in bytes, such as its present memory or the peak of it."""
    return 1024 * int(next(line for line in Path("/proc/self/status").open() if line.startswith(name)).split()[1])


def first_batches(path: Path) -> None:
    data = Text(str(path), context=64, batch_size=16)
    data.setup("fit")
    for loader in (data.train_dataloader(), data.val_dataloader()["val"]):
        for _ in islice(loader, 20):
            pass


def peaks(warm_up: Path, paths: list[Path], results: multiprocessing.Queue) -> None:
    first_batches(warm_up)
    for path in paths:
        gc.collect()
        before = of_status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
        first_batches(path)
        results.put(of_status("VmHWM") - before)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks of memory are read from Linux's /proc")
def test_a_text_takes_at_most_three_bytes_of_memory_a_byte(file, tmp_path):
    size, paths = 20_000_000, [tmp_path / "ascii.txt", tmp_path / "czech.txt"]
    for path, letters in zip(paths, ("ab cd\n", "žš čř\n"), strict=True):
        path.write_text(letters * (size // len(letters.encode())), encoding="utf-8")
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    process = fork.Process(target=peaks, args=(file, paths, results))
    process.start()
    process.join(300)
    assert process.exitcode == 0
    found = [results.get() for _ in paths]
    assert 0 < min(found) <= max(found) < 3 * size, found
