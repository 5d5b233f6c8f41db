"""Captions: drawn scenes have true sentences and held-out phrasings and classes; lists of own images are read."""

import re
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer

from datamodules.captions.base import check_words, encode_sentences, word_tokenizer
from datamodules.captions.drawn import PHRASINGS, Captions, phrase
from datamodules.captions.files import CaptionList, equal_pairs, read_pairs
from datamodules.images import image_files
from datamodules.scenes import COLORS, SHAPES, SIZES
from helpers import draw_picture, record

FEW = {"train_size": 60, "val_size": 20, "test_size": 30, "size": 48}


@pytest.fixture(scope="module")
def data() -> Captions:
    made = Captions(**FEW)
    made.setup("fit")
    return made


# Drawn scenes


def position(part: torch.Tensor, image: torch.Tensor) -> tuple[int, int]:
    """The position of `part` (3, S, S) in `image`, from the left and from the top."""
    positions = product(range(image.shape[2] - part.shape[2] + 1), range(image.shape[1] - part.shape[1] + 1))
    height, width = part.shape[1:]
    return next((x, y) for x, y in positions if torch.equal(image[:, y : y + height, x : x + width], part))


def test_a_sentence_is_true_of_its_image(data):
    """The color is that of the center pixel, the size that of the box, the shape that of the scene."""
    for split, pairs in data.datasets.items():
        sentences = data.sentences(pairs.columns.input_ids)
        assert len(pairs) == FEW[f"{split}_size"]
        for sentence, scene, image in zip(sentences, data.drawn.scenes(split), pairs.columns.image, strict=True):
            words = sentence.split()
            (size,), (color,), (shape,) = ([w for w in words if w in kinds] for kinds in (SIZES, COLORS, SHAPES))
            left, top, right, bottom = (scene.boxes[0] - torch.tensor(position(image, scene.image) * 2)).tolist()
            assert min(left, top) >= 0
            assert max(right, bottom) <= 48
            center = (image[:, int(top + bottom) // 2, int(left + right) // 2] / 255).numpy()
            distances = {name: np.abs(np.subtract(center, rgb)).max() for name, rgb in COLORS.items()}
            assert min(distances, key=distances.get) == color, sentence
            low, high = SIZES[size]  # of the radius, as a share of the scene; a box is sqrt(2) to 2 of them wide
            assert 1.41 * low <= max(right - left, bottom - top) / scene.image.shape[1] <= 2.01 * high, sentence
            assert SHAPES[scene.labels[0]] == shape, sentence


def test_the_class_of_the_label_is_the_one_in_the_sentence(data):
    for pairs in data.datasets.values():
        for sentence, label in zip(data.sentences(pairs.columns.input_ids), pairs.columns.label, strict=True):
            assert set(data.classes[label].split()) <= set(sentence.split())
    assert data.num_classes == len(set(data.classes)) == len(SIZES) * len(COLORS) * len(SHAPES)


def test_held_out_phrasings_never_occur_in_training():
    data = Captions()
    texts = {split: set(data.phrased(split).flat) for split in PHRASINGS}
    assert not texts["train"] & texts["val"]
    assert not texts["train"] & texts["test"]
    assert not texts["val"] & texts["test"]
    trained = [re.escape(phrasing).replace(r"\{", "{").replace(r"\}", "}") for phrasing in PHRASINGS["train"]]
    trained = [re.compile(re.sub(r"{\w+}", r"\\w+", pattern).replace("a\\ ", "an?\\ ")) for pattern in trained]
    assert all(any(pattern.fullmatch(text) for pattern in trained) for text in texts["train"])
    # Nor with other words for size, color and shape.
    assert not any(pattern.fullmatch(text) for pattern in trained for text in texts["val"] | texts["test"])


def test_every_word_of_held_out_phrasings_occurs_in_training():
    data = Captions()
    words = {split: {w for text in data.phrased(split).flat for w in text.split()} for split in PHRASINGS}
    assert words["val"] | words["test"] <= words["train"]
    assert words["train"] | {"[PAD]", "[UNK]", "[EOS]"} == set(data.tokenizer.get_vocab())
    for text in data.phrased("test").flat:
        check_words(data.tokenizer, text)


def test_every_phrasing_states_size_color_and_shape():
    for phrasing in (p for phrasings in PHRASINGS.values() for p in phrasings):
        assert {found.strip("{}") for found in re.findall(r"{\w+}", phrasing)} == {"size", "color", "shape"}
    assert phrase("a {color} {shape}, a {size} one", ("small", "orange", "star")) == "an orange star, a small one"


def test_the_sentences_of_a_split_use_all_its_phrasings_and_no_others(data):
    for split, pairs in data.datasets.items():
        texts = data.phrased(split)
        used = [np.argwhere(texts == text)[0][0] for text in data.sentences(pairs.columns.input_ids)]
        assert set(used) == set(range(len(texts)))


def test_prompts_are_all_classes_in_all_phrasings_of_the_split(data):
    ids, mask = data.prompts("test")
    assert ids.shape == mask.shape == (len(PHRASINGS["test"]), data.num_classes, ids.shape[2])
    assert data.sentences(ids[1]) == data.phrased("test")[1].tolist()
    end = data.tokenizer.token_to_id("[EOS]")
    assert (ids[mask.bool()].eq(end).sum()) == mask[..., 0].numel()
    assert ids.gather(2, mask.sum(2, keepdim=True) - 1).eq(end).all()


def test_new_pairs_of_color_and_shape_are_tested_but_never_trained():
    data = Captions(**FEW | {"train_size": 200}, new=6)
    data.setup("fit")
    new = {tuple(data.classes[label].split()[1:]) for label in data.new_classes}
    assert len(new) == 6
    assert len(data.new_classes) == 6 * len(SIZES)
    trained, tested = (set(data.datasets[split].columns.label.tolist()) for split in ("train", "test"))
    assert not trained & set(data.new_classes)
    assert tested & set(data.new_classes)
    assert len(data.datasets["test"]) == FEW["test_size"]
    for count in (-1, 35):
        with pytest.raises(ValueError, match=f"new is {count}: expected 0 or more, and few enough to leave each color"):
            Captions(new=count)
    with pytest.raises(ValueError, match="blau"):
        Captions(colors=("red", "blau"))


def test_splits_share_no_image_and_batches_are_paired_and_normalized(data):
    images = {
        split: {image.numpy().tobytes() for image in pairs.columns.image} for split, pairs in data.datasets.items()
    }
    assert not images["train"] & images["test"]
    assert not images["train"] & images["val"]
    seen = record(Captions(**FEW, batch_size=20, eval_batch_size=7)).seen["train"]
    assert len(seen) == 3
    batch = seen[0]
    assert batch.image.shape == (20, 3, 48, 48)
    assert batch.image.dtype == torch.float32
    assert batch.image.min() < -0.5
    assert batch.input_ids.dtype == batch.label.dtype == torch.int64
    assert batch.attention_mask.dtype == torch.bool
    assert batch.attention_mask.shape == batch.input_ids.shape


def test_the_metadata_restore_the_tokenizer(data):
    again = Tokenizer.from_str(data.metadata()["tokenizer"])
    texts = ["a red star", "red"]
    pairs = zip(encode_sentences(again, texts), encode_sentences(data.tokenizer, texts), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert data.metadata()["image_shape"] == [3, 48, 48]


def test_an_unknown_word_or_an_empty_sentence_is_an_error_that_names_it(data):
    with pytest.raises(ValueError, match=r"never saw the word 'smal': .*nearest: small"):
        check_words(data.tokenizer, "a smal red star")
    with pytest.raises(ValueError, match="never saw the word 'zebra': expected words"):
        check_words(data.tokenizer, "a zebra")
    with pytest.raises(ValueError, match="the sentence '  ' is empty"):
        check_words(data.tokenizer, "  ")
    check_words(data.tokenizer, "A RED star")


def test_punctuation_follows_its_word_without_a_space():
    tokenizer = word_tokenizer(["one, two!"])
    captions = Captions(**FEW)
    captions.tokenizer = tokenizer
    assert captions.sentences(encode_sentences(tokenizer, ["One, two!", "two"])[0]) == ["one, two!", "two"]


# The user's own images


def write_list(folder, text: str | bytes, name: str = "list.csv"):
    (folder / "pics").mkdir(exist_ok=True)
    for i in range(8):
        draw_picture(i, (40 + i, 30)).save(folder / "pics" / f"{i}.png")
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


LINES = [f"pics/{i}.png,image number {i}" for i in range(8)]


def test_a_list_is_read_with_commas_tabs_quotes_a_heading_empty_lines_and_a_byte_order_mark(tmp_path):
    tsv = "\n".join(line.replace(",", "\t", 1) for line in LINES)
    commas = '\ufeffimage,caption\npics/0.png,"a dog, a cat"\n\n pics/1.png , two   words \n'
    tabs = write_list(tmp_path, tsv, "list.tsv")
    assert read_pairs(tabs) == [(tmp_path / f"pics/{i}.png", f"image number {i}") for i in range(8)]
    found = read_pairs(write_list(tmp_path, commas))
    assert found == [(tmp_path / "pics/0.png", "a dog, a cat"), (tmp_path / "pics/1.png", "two words")]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (
            "pics/0.png,a dog\npics/9.png,a cat",
            FileNotFoundError,
            r"line 2 of .*list.csv: .*9\.png does not exist: expected an image",
        ),
        ("pics/0.png,a dog\npics/1.png,  ", ValueError, r"line 2 of .*list.csv has no sentence for 1\.png"),
        ("pics/0.png\npics/1.png", ValueError, r"line 1 of .*list.csv has 1 column\(s\): expected 2"),
        ("pics/0.png,a dog, a cat", ValueError, "has 3 column.*double quotes"),
        (b"pics/0.png,\xe9t\xe9", ValueError, "is not UTF-8: byte 0xe9 at offset 11"),
        ("", ValueError, "list.csv contains no text"),
        ("pics/0.png,one\npics/1.png,two\n", ValueError, r"names 2 image\(s\): expected 3 or more"),
        ("image,caption\n", ValueError, r"names 0 image\(s\)"),
    ],
)
def test_a_bad_list_is_one_clear_error(tmp_path, text, error, message):
    with pytest.raises(error, match=message):
        CaptionList(str(write_list(tmp_path, text)))


def test_a_missing_list_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv does not exist: expected a CSV or TSV file"):
        CaptionList(str(tmp_path / "nowhere.csv"))


def test_a_file_that_is_not_an_image_is_an_error_that_names_it(tmp_path):
    file = write_list(tmp_path, "\n".join(LINES))
    for i in range(8):
        (tmp_path / "pics" / f"{i}.png").write_text(f"not image {i}")
    with pytest.raises(ValueError, match=r"\d\.png cannot be read as an image"):
        record(CaptionList(str(file), num_workers=0))


def test_own_images_become_batches_and_no_image_is_in_two_splits(tmp_path):
    lines = [line for i, line in enumerate(LINES) for line in (line, f"pics/{i}.png,the one after {i - 1}")]
    file = write_list(tmp_path, "\n".join(lines))
    data = CaptionList(str(file), image_size=24, batch_size=4, eval_batch_size=3, num_workers=0, seed=1)
    images = {split: {data.pairs[i][0] for i in rows} for split, rows in data.rows.items()}
    assert sum(map(len, images.values())) == 8
    assert sum(map(len, data.rows.values())) == 16
    assert len(set.union(*images.values())) == 8
    seen = record(data).seen
    assert {batch.image.shape for batch in seen["train"]} == {(4, 3, 24, 24)}
    texts = [text for batch in seen["val"] for text in data.sentences(batch.input_ids)]
    assert len(texts) == 2
    labels = torch.cat([batch.label for batch in seen["val"]])
    assert labels[0] == labels[1]  # two sentences of one image
    again = CaptionList(str(file), image_size=24)
    assert again.rows == data.rows
    assert again.tokenizer.to_str() == data.tokenizer.to_str()


def test_shrunken_images_keep_the_pixels_between(tmp_path):
    """Black and white pixels in turn become gray, instead of black or white."""
    file = write_list(tmp_path, "\n".join(LINES))
    for i in range(8):
        pattern = np.indices((300, 300)).sum(0) % 2 * 255
        pattern[0, 0] = 10 * i  # no copies
        Image.fromarray(pattern.astype(np.uint8)).save(tmp_path / "pics" / f"{i}.png")
    data = CaptionList(str(file), image_size=32, batch_size=4, num_workers=0, mean=(0, 0, 0), std=(1, 1, 1))
    seen = record(data).seen
    for split in ("train", "val"):
        pixels = torch.cat([batch.image for batch in seen[split]])
        assert 0.35 < pixels.mean() < 0.65
        assert pixels.std() < 0.1, split


def test_large_jpegs_are_decoded_smaller(tmp_path, monkeypatch):
    lines = [line.replace(".png", ".jpg") for line in LINES]
    file, sizes = write_list(tmp_path, "\n".join(lines[:3])), []
    for i in range(3):
        draw_picture(i, (800, 600)).save(tmp_path / "pics" / f"{i}.jpg")
    read_image = image_files.read_image
    monkeypatch.setattr(
        image_files, "read_image", lambda *args, **options: sizes.append((x := read_image(*args, **options)).size) or x
    )
    record(CaptionList(str(file), image_size=32, num_workers=0))
    assert set(sizes) == {(100, 75)}


def test_copies_of_an_image_under_any_name_are_one_image(tmp_path, capfd):
    file = write_list(tmp_path, "\n".join(LINES))
    for i in range(8):
        (tmp_path / f"copy {i}.png").write_bytes((tmp_path / f"pics/{i}.png").read_bytes())
    again = [f"pics/../pics/{i}.png,seen from above {i}" for i in range(8)]
    file.write_text("\n".join([*LINES, *(f"copy {i}.png,another {i}" for i in range(8)), *again]))
    data = CaptionList(str(file), image_size=24)
    assert "images that occur more than once: 8" in capfd.readouterr().err
    numbers = [{data.pairs[i][1].split()[-1] for i in rows} for rows in data.rows.values()]
    assert sorted(number for part in numbers for number in part) == [str(i) for i in range(8)]
    assert [len(data.rows[split]) for split in data.rows] == [18, 3, 3]
    assert len(set(equal_pairs(data.pairs))) == 8


def test_augmentation_of_own_images_is_a_function_of_epoch_and_seed(tmp_path):
    file = write_list(tmp_path, "\n".join(LINES))

    def images(seed: int, epoch: int) -> torch.Tensor:
        data = CaptionList(str(file), image_size=24, num_workers=0, seed=seed)
        data.setup("fit")
        data.datasets["train"].set_epoch(epoch)
        return torch.stack([data.datasets["train"][i].image for i in range(6)])

    assert torch.equal(images(0, 1), images(0, 1))
    assert not torch.equal(images(0, 1), images(0, 2))
    assert not torch.equal(images(0, 1), images(1, 1))


def test_only_words_of_training_have_their_own_tokens(tmp_path):
    data = CaptionList(str(write_list(tmp_path, "\n".join(LINES))), num_workers=0)
    data.setup("fit")
    unknown = data.tokenizer.token_to_id("[UNK]")
    assert not (data.datasets["train"].input_ids == unknown).any()
    assert (data.datasets["test"].input_ids == unknown).any()  # the number of the image


def test_pairs_that_share_an_image_or_a_sentence_are_equal():
    assert equal_pairs([("a", "x"), ("b", "y"), ("a", "z"), ("c", "X"), ("d", "z")]) == [0, 1, 0, 0, 0]
    assert len(set(equal_pairs([(str(i), f"text {i}") for i in range(5)]))) == 5
