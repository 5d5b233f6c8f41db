"""What a user gives becomes the batch that the net was trained on: equal to what the datamodule makes of the same."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datamodules.captions.base import encode_sentences, word_tokenizer
from datamodules.images.digits import Digits
from datamodules.text.sentence_pairs import SentencePairs
from datamodules.text.text import Text
from helpers import draw_picture, verse
from zoo.inference.preprocess import Images, MaskedTexts, Sentences, Texts, preprocesses

COLOR = Images((3, 6, 8), (0.4, 0.5, 0.6), (0.2, 0.3, 0.1))


def test_a_file_an_image_an_array_and_a_tensor_become_what_the_datamodule_makes(tmp_path):
    data = Digits()
    data.setup("test")
    images = data.datasets["test"].images[:3]
    expected = data.normalize(images.float() / 255)
    prepare = preprocesses(data.metadata())["images"]
    arrays = [image[0].numpy() for image in images]
    for i, array in enumerate(arrays):
        Image.fromarray(array).save(tmp_path / f"{i}.png")
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for given_ in (files, [str(file) for file in files], [Image.open(file) for file in files], arrays, list(images)):
        assert torch.equal(prepare(given_), expected)
    assert torch.equal(prepare([files[0], arrays[1], images[2]]), expected), "also mixed"
    assert torch.equal(prepare(arrays[0]), expected[:1])
    assert torch.equal(prepare(arrays[0][..., None].repeat(3, 2)), expected[:1]), "gray in three channels"
    assert torch.equal(prepare(tuple(arrays)), expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([(), (1,), (3,), (4,)]), st.sampled_from(["L", "RGB"]))
def test_images_of_any_size_and_channels_become_a_batch(height, width, channels, mode):
    prepare = COLOR if mode == "RGB" else Images((1, 6, 8), (0.4,), (0.2,))
    batch = prepare([np.full((height, width, *channels), 102, np.uint8)] * 2)
    assert batch.shape == (2, *prepare.image_shape)
    assert batch.dtype == torch.float32
    if channels != (4,):  # an even image stays even
        expected = [(0.4 - m) / s for m, s in zip(prepare.mean, prepare.std, strict=True)]
        torch.testing.assert_close(batch[0].amax((1, 2)), torch.tensor(expected), atol=1e-5, rtol=0)
        torch.testing.assert_close(batch[0].amin((1, 2)), torch.tensor(expected), atol=1e-5, rtol=0)


def test_an_image_in_memory_equals_its_file(tmp_path):
    """Turned upright, transparent parts white, palettes as their colors."""
    picture = draw_picture(3, (30, 20))
    turned, clear = picture.copy(), picture.convert("RGBA")
    turned.getexif()[0x0112] = 6
    clear.putalpha(Image.linear_gradient("L").resize((30, 20)))
    for name, image in (
        ("t.png", turned),
        ("c.png", clear),
        ("p.png", picture.quantize(8)),
        ("g.png", picture.convert("L")),
    ):
        options = {"exif": turned.getexif()} if name == "t.png" else {}
        image.save(tmp_path / name, **options)
        with Image.open(tmp_path / name) as opened:
            assert torch.equal(COLOR(opened), COLOR(tmp_path / name)), name
    assert not torch.equal(COLOR(turned), COLOR(picture)), "it was turned"


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "empty"),
        (np.zeros((4, 4), np.float32), r"float32 \(4, 4\): expected uint8"),
        (np.zeros((2, 4, 4, 3), np.uint8), "several images come as a list"),
        (np.zeros((4, 4, 2), np.uint8), "expected uint8"),
        (torch.zeros(3, 4, 4), r"float32 \(3, 4, 4\)"),
        (Image.new("I;16", (4, 4)), "mode 'I;16'"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(images, message):
    with pytest.raises(ValueError, match=message) as error:
        COLOR(images)
    assert "\n" not in str(error.value)


def test_texts_become_the_tokens_of_training(tmp_path):
    (tmp_path / "verse.txt").write_text(verse())
    data = Text(str(tmp_path / "verse.txt"), context=16)
    prepare = preprocesses(data.metadata())["texts"]
    assert isinstance(prepare, Texts)
    assert prepare("to be").tolist() == [data.tokenizer.encode("to be").ids]
    assert prepare(["to be", "or no"]).shape == (2, 5)
    with pytest.raises(ValueError, match="2 and 5 tokens: expected one or more, and as many in each"):
        prepare(["to be", "or"])
    with pytest.raises(ValueError, match="0 tokens"):
        prepare("")
    with pytest.raises(ValueError, match="'é'"):
        prepare("é")


def test_a_masked_text_has_the_form_of_a_pair_of_training(tmp_path, monkeypatch):
    """The two segments of a validation pair, put together as one text, give its row again.

    Of segments that begin within a word the text may be cut into other tokens; those are left out, and pairs of unequal
    segments.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "verse.txt").write_text(verse())
    data = SentencePairs(str(tmp_path / "verse.txt"), segment=8, vocab_size=300)
    data.setup("fit")
    prepare = preprocesses(data.metadata())["texts"]
    assert isinstance(prepare, MaskedTexts)
    pairs = data.datasets["val"]
    equal = [i for i in range(len(pairs)) if pairs.together[i] and len({*map(len, pairs.segments(i))}) == 1]
    ids_of = {i: torch.cat(pairs.segments(i)).tolist() for i in equal}
    text_of = {i: data.tokenizer.decode(ids) for i, ids in ids_of.items()}
    together = [i for i, text in text_of.items() if data.tokenizer.encode(text).ids == ids_of[i]]
    assert len(together) > 3
    batch = pairs.__getitems__(torch.tensor(together))
    texts = [text_of[i] for i in together]
    ids, mask, segments = prepare(texts)
    original = torch.where(batch.labels == -100, batch.input_ids, batch.labels)
    for row in range(len(together)):
        assert ids[row, mask[row]].tolist() == original[row, batch.attention_mask[row]].tolist()
        assert segments[row, mask[row]].tolist() == batch.token_type_ids[row, batch.attention_mask[row]].tolist()
    (one, _, _), (other, _, _) = prepare("to be [MASK] or"), prepare("to be[MASK] or")
    assert one.tolist() == other.tolist(), "a token has the space before it"
    assert (one == prepare.mask).sum() == 1


def test_sentences_become_the_tokens_and_mask_of_training():
    tokenizer = word_tokenizer(["a red star", "the large blue circle ."])
    data = {"image_shape": [3, 4, 4], "mean": [0.5] * 3, "std": [0.5] * 3, "tokenizer": tokenizer.to_str()}
    prepare = preprocesses(data)["texts"]
    assert isinstance(prepare, Sentences)
    sentences = ["a large star", "the circle"]
    for found, expected in zip(prepare(sentences), encode_sentences(tokenizer, sentences), strict=True):
        assert torch.equal(found, expected)
    with pytest.raises(ValueError, match="'zebra'"):
        prepare("a zebra")


def test_what_it_does_can_be_read():
    assert "RGB, resized to 8 x 6" in repr(COLOR)
    assert "0.4, 0.2 / 0.5, 0.3 / 0.6, 0.1" in repr(COLOR)
