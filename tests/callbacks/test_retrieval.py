"""The contact sheet shows the best images of all, rightly marked; the command finds images for a typed sentence."""

import pytest
import torch
from lightning import LightningModule
from PIL import Image

from callbacks.figures.retrieval import contact_sheet, similarity_matrix
from callbacks.galleries.retrieval import RetrievalGallery
from datamodules.captions.drawn import Captions
from helpers import fingerprint_of_global_randomness, quiet_trainer
from zoo.multimodal.clip import CLIP

N, SIZE = 30, 24


def data(**options) -> Captions:
    few = {"train_size": 16, "val_size": 12, "test_size": N, "size": SIZE, "batch_size": 8, "eval_batch_size": 7}
    return Captions(**few | options)


def tiny() -> CLIP:
    torch.manual_seed(0)
    return CLIP(45, 16, widths=(4, 8), text_width=16, text_depth=1, text_heads=2)


def evaluate(tmp_path, gallery: RetrievalGallery, pairs: Captions) -> CLIP:
    model = tiny()
    quiet_trainer(callbacks=[gallery], default_root_dir=tmp_path).test(model, datamodule=pairs, verbose=False)
    return model


def test_it_shows_the_best_images_of_the_complete_set_and_the_best_wrong_one(tmp_path, published, texts_of):
    gallery, pairs = RetrievalGallery(n=3, k=4), data()
    model = evaluate(tmp_path, gallery, pairs)
    columns = pairs.datasets["test"].columns
    order, cosine = model.eval().rank(
        pairs.normalize(columns.image / 255), columns.input_ids[:7], columns.attention_mask[:7]
    )
    labels = columns.label.tolist()
    rows = [i for i in range(7) if labels[i] not in labels[:i]][:3]
    for number, row in enumerate(rows):
        entries = [entry for entry in gallery.shown if entry.group == number]
        wrong = [i for i in order[row].tolist()[4:] if labels[i] != labels[row]]
        wanted = [*order[row].tolist()[:4], wrong[0]]
        assert [entry.index for entry in entries] == wanted
        assert [entry.item.right for entry in entries] == [labels[i] == labels[row] for i in wanted]
        for entry in entries:
            hit, index = entry.item, entry.index
            assert (hit.query, entry.wrong, entry.rank_key) == (number, not hit.right, -hit.cosine)
            torch.testing.assert_close(hit.image, pairs.normalize(columns.image[index] / 255))
            assert hit.cosine == pytest.approx(cosine[row][order[row] == index].item(), abs=1e-5)
    figures = {figure.name: figure for figure in published}
    texts = texts_of(figures["retrieval_test"].figure)
    sentences = pairs.sentences(columns.input_ids[rows])
    assert {f"“{sentence}”" for sentence in sentences} <= set(texts)
    marks = [text[0] for text in texts if text[0] in "✓✗"]
    right = [entry.item.right for entry in gallery.shown]
    assert marks == ["✓" if is_right else "✗" for is_right in right]
    heads, table = figures["retrieval_test"].table
    assert heads == ["sentence", "class", "image", "cosine", "right"]
    assert [row[4] for row in table] == right
    assert any(f"best of {N} images, first place right for {sum(right[::5])} of 3 sentences" in text for text in texts)


def test_the_files_are_real_images_and_the_matrix_has_a_cosine_for_each_pair(tmp_path, published, texts_of):
    evaluate(tmp_path, RetrievalGallery(n=4, k=2), data())
    for name in ("retrieval_test", "similarity_test"):
        with Image.open(tmp_path / "pictures" / f"{name}.png") as image:
            assert min(image.size) > 300
            assert len(image.convert("RGB").getcolors(1 << 24)) > 100
    (matrix,) = (figure for name, figure, _ in published if name == "similarity_test")
    assert len([text for text in texts_of(matrix) if text.lstrip("\u2212").startswith(("0.", "1."))]) == 16


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
        sizes.append(len(gallery._held))
    assert max(sizes) <= 2 * 4
    images = [entry.item.image for entry in gallery._held]
    assert all(image.untyped_storage().nbytes() == 4 * image.numel() for image in images)
    gallery._finish(trainer, model)
    assert before == (fingerprint_of_global_randomness(), [child.training for child in model.modules()])


def test_it_draws_the_last_validation_after_fit_and_optionally_during_fit(tmp_path, published):
    gallery = RetrievalGallery(n=2, k=2, every_n_epochs=1)
    quiet_trainer(callbacks=[gallery], default_root_dir=tmp_path, max_epochs=2).fit(tiny(), datamodule=data())
    assert [figure.name for figure in published] == ["retrieval_val", "similarity_val"] * 2  # once for each epoch
    assert gallery.seen == 12


def test_fewer_images_than_requested_are_not_an_error(tmp_path):
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

    with pytest.raises(ValueError, match="RetrievalGallery found no image_embedding in what the test step"):
        quiet_trainer(callbacks=[RetrievalGallery()], default_root_dir=tmp_path).test(Silent(), data(), verbose=False)


def test_the_sheet_marks_right_and_wrong_by_more_than_color(texts_of):
    image = torch.rand(8, 8, 3).numpy()
    figure = contact_sheet([("a", [(image, 0.5, True), (image, -0.25, False), (image, 0.1, None)])], 3, "t", "s")
    assert [text for text in texts_of(figure) if text[-1].isdigit()] == ["✓ 0.50", "✗ \u22120.25", "0.10"]
    styles = [axes.patches[0].get_linestyle() for axes in figure.axes]
    assert styles[0] != styles[1]
    assert len(similarity_matrix(["a", "b"], [image, image], torch.eye(2).numpy(), "test").axes) == 3
