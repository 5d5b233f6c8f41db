"""The contact sheet shows the best pictures of all, rightly marked; the script finds some for a typed sentence."""

import gc

import pytest
import torch
from lightning import LightningModule
from matplotlib.text import Text
from PIL import Image

from callbacks.figures.callback import FigureCallback
from callbacks.figures.retrieval import contact_sheet, similarity_matrix
from callbacks.galleries.retrieval import RetrievalGallery
from datamodules.captions.drawn import Captions
from helpers import Synthetic, fingerprint_of_global_randomness, quiet_trainer
from zoo.classification.resnet_mini import ResNetMini
from zoo.command.verbs.find import find, pictures
from zoo.multimodal.clip import CLIP

N, SIZE = 30, 24


def data(**options) -> Captions:
    few = {"train_size": 16, "val_size": 12, "test_size": N, "size": SIZE, "batch_size": 8, "eval_batch_size": 7}
    return Captions(**few | options)


def tiny() -> CLIP:
    torch.manual_seed(0)
    return CLIP(45, 16, widths=(4, 8), text_width=16, text_depth=1, text_heads=2)


def texts_of(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@pytest.fixture
def published(monkeypatch) -> dict:
    """Figures and tables that were published, by name."""
    found, publish = {}, FigureCallback.publish

    def noting(self, trainer, name, figure, table=None):
        found[name] = (figure, table)
        return publish(self, trainer, name, figure, table)

    monkeypatch.setattr(FigureCallback, "publish", noting)
    return found


def evaluate(tmp_path, gallery: RetrievalGallery, pairs: Captions) -> CLIP:
    model = tiny()
    quiet_trainer(callbacks=[gallery], default_root_dir=tmp_path).test(model, datamodule=pairs, verbose=False)
    return model


def test_it_shows_the_best_pictures_of_the_whole_set_and_the_nearest_wrong_one(tmp_path, published):
    gallery, pairs = RetrievalGallery(n=3, k=4), data()
    model = evaluate(tmp_path, gallery, pairs)
    columns = pairs.datasets["test"].columns
    order, cosine = model.eval().rank(
        pairs.normalize(columns.image / 255), columns.input_ids[:7], columns.attention_mask[:7]
    )
    labels = columns.label.tolist()
    rows = [i for i in range(7) if labels[i] not in labels[:i]][:3]
    for number, row in enumerate(rows):
        hits = [hit for hit in gallery.shown if hit.query == number]
        wrong = [i for i in order[row].tolist()[4:] if labels[i] != labels[row]]
        wanted = [*order[row].tolist()[:4], wrong[0]]
        assert [hit.index for hit in hits] == wanted
        assert [hit.right for hit in hits] == [labels[i] == labels[row] for i in wanted]
        for hit in hits:
            torch.testing.assert_close(hit.image, pairs.normalize(columns.image[hit.index] / 255))
            assert hit.cosine == pytest.approx(cosine[row][order[row] == hit.index].item(), abs=1e-5)
    said = texts_of(published["retrieval_test"][0])
    sentences = pairs.sentences(columns.input_ids[rows])
    assert {f"“{sentence}”" for sentence in sentences} <= set(said)
    marks = [text[0] for text in said if text[0] in "✓✗"]
    assert marks == ["✓" if hit.right else "✗" for hit in gallery.shown]
    heads, table = published["retrieval_test"][1]
    assert heads == ["sentence", "class", "image", "cosine", "right"]
    assert [row[4] for row in table] == [hit.right for hit in gallery.shown]
    first = [hits.right for i, hits in enumerate(gallery.shown) if i % 5 == 0]
    assert any(f"best of {N} pictures, first place right for {sum(first)} of 3 sentences" in text for text in said)


def test_the_files_are_real_pictures_and_the_matrix_has_a_cosine_for_each_pair(tmp_path, published):
    evaluate(tmp_path, RetrievalGallery(n=4, k=2), data())
    for name in ("retrieval_test", "similarity_test"):
        with Image.open(tmp_path / "pictures" / f"{name}.png") as picture:
            assert min(picture.size) > 300
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 100
    numbers = [
        text for text in texts_of(published["similarity_test"][0]) if text.lstrip("\u2212").startswith(("0.", "1."))
    ]
    assert len(numbers) == 16


def test_nothing_is_disturbed_and_no_more_is_held_than_shown(tmp_path):
    gallery, pairs, model = RetrievalGallery(n=2, k=3), data(), tiny()
    pairs.setup("test")
    trainer = quiet_trainer(callbacks=[gallery], default_root_dir=tmp_path)
    trainer.test(model, datamodule=pairs, verbose=False)
    before = fingerprint_of_global_randomness(), [child.training for child in model.modules()]
    gallery._start("test")
    batch = pairs.datasets["test"][torch.arange(7)]
    batch = batch._replace(image=pairs.normalize(batch.image / 255))
    with torch.no_grad():
        image, text = model.net.encode_image(batch.image), model.net.encode_text(*batch[1:3])
    outputs = {"image_embedding": image, "text_embedding": text}
    sizes = []
    for _ in range(30):
        gallery._collect(trainer, outputs, batch)
        gc.collect()
        sizes.append(len(gallery._held))
    assert max(sizes) <= 2 * 4
    assert all(hit.image.untyped_storage().nbytes() == 4 * hit.image.numel() for hit in gallery._held)
    gallery._finish(trainer, model)
    assert before == (fingerprint_of_global_randomness(), [child.training for child in model.modules()])


def test_after_fit_it_draws_the_last_validation_and_during_fit_when_asked(tmp_path, published):
    gallery = RetrievalGallery(n=2, k=2, every_n_epochs=1)
    quiet_trainer(callbacks=[gallery], default_root_dir=tmp_path, max_epochs=2).fit(tiny(), datamodule=data())
    assert set(published) == {"retrieval_val", "similarity_val"}
    assert gallery.seen == 12


def test_fewer_pictures_than_asked_for_are_no_error(tmp_path):
    gallery = RetrievalGallery(n=50, k=50)
    evaluate(tmp_path, gallery, data(test_size=3))
    assert len(gallery.shown) == 3 * len(gallery.queries)


def test_bad_arguments_and_steps_without_embeddings_are_errors(tmp_path):
    for options in ({"n": 0}, {"k": 0}):
        with pytest.raises(ValueError, match="expected 1 or more"):
            RetrievalGallery(**options)

    class Silent(LightningModule):
        def test_step(self, batch, batch_idx):
            return {"loss": torch.zeros(())}

    with pytest.raises(ValueError, match="RetrievalGallery found no embeddings in what the test step returns"):
        quiet_trainer(callbacks=[RetrievalGallery()], default_root_dir=tmp_path).test(Silent(), data(), verbose=False)


def test_the_sheet_marks_right_and_wrong_by_more_than_colour():
    image = torch.rand(8, 8, 3).numpy()
    figure = contact_sheet([("a", [(image, 0.5, True), (image, -0.25, False), (image, 0.1, None)])], 3, "t", "s")
    assert [text for text in texts_of(figure) if text[-1].isdigit()] == ["✓ 0.50", "✗ \u22120.25", "0.10"]
    styles = [axes.patches[0].get_linestyle() for axes in figure.axes]
    assert styles[0] != styles[1]
    assert len(similarity_matrix(["a", "b"], [image, image], torch.eye(2).numpy(), "test").axes) == 3


# The script


@pytest.fixture
def checkpoint(tmp_path):
    trainer = quiet_trainer(max_steps=1, limit_val_batches=0)
    trainer.fit(tiny(), datamodule=data())
    trainer.save_checkpoint(tmp_path / "clip.ckpt")
    return str(tmp_path / "clip.ckpt")


def test_a_typed_sentence_finds_pictures_of_a_folder(checkpoint, tmp_path, pictures_of_scenes):
    out = tmp_path / "found.png"
    found = find(checkpoint, "a large red STAR", str(pictures_of_scenes), str(out))
    names, images = pictures(str(pictures_of_scenes), (3, SIZE, SIZE))
    assert images.shape == (12, 3, SIZE, SIZE)
    assert len(found) == 10
    assert {name for name, _ in found} < set(names)
    assert [cosine for _, cosine in found] == sorted((cosine for _, cosine in found), reverse=True)
    with Image.open(out) as picture:
        assert picture.size[0] > 800
    assert not list(tmp_path.glob(".*.part"))


def test_without_a_folder_it_looks_among_drawn_scenes(checkpoint, tmp_path):
    assert find(checkpoint, "a star", None, str(tmp_path / "found.png"))[0][0].startswith("scene ")


@pytest.fixture
def pictures_of_scenes(tmp_path):
    pairs = data(test_size=12, size=40)
    pairs.setup("test")
    folder = tmp_path / "scenes"
    folder.mkdir()
    for i, image in enumerate(pairs.datasets["test"].columns.image):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i:02}.png")
    return folder


def test_unknown_words_no_pictures_and_other_checkpoints_are_errors(checkpoint, tmp_path):
    with pytest.raises(ValueError, match="never saw the word 'zebra'"):
        find(checkpoint, "a red zebra")
    with pytest.raises(FileNotFoundError, match="holds no picture"):
        find(checkpoint, "a red star", str(tmp_path / "nowhere"))
    trainer = quiet_trainer(max_steps=1, limit_val_batches=0)
    other = ResNetMini(num_classes=70, in_channels=3)
    trainer.fit(other, datamodule=Synthetic(image_shape=(3, 24, 24), num_classes=70))
    trainer.save_checkpoint(tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="is a ResNetMini: expected a module that ranks pictures"):
        find(str(tmp_path / "other.ckpt"), "a red star")
    assert not list(tmp_path.glob("found*"))
