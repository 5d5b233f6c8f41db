"""What galleries write down for a page: images as they are, mistakes of each class, and right ones in contrast."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from callbacks.galleries.gradcam import GradCAMGallery, overlay
from callbacks.galleries.items import LARGEST, Choice, Entry, data_uri
from callbacks.galleries.misclassified import MisclassifiedGallery
from callbacks.galleries.relevance import relevance
from helpers import Synthetic
from zoo.classification.resnet_mini import ResNetMini

SIZE = 12


def decoded(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_small_images_are_kept_exactly_and_large_ones_shrunk():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    assert (decoded(data_uri(image / 255)) == image).all()
    wide = decoded(data_uri(np.full((100, 1000, 3), 0.5)))
    assert wide.shape[:2] == (26, LARGEST)
    assert abs(int(wide.mean()) - 128) <= 2


@pytest.mark.parametrize("order", ["worst", "best", "first", "spread", "spread first"])
def test_a_choice_is_the_same_however_the_entries_come(order):
    draw = np.random.default_rng(1)
    entries = [Entry(None, float(draw.integers(0, 9)), i, group=int(draw.integers(0, 3))) for i in range(60)]
    whole, parts = Choice(7, order), Choice(7, order)
    whole.offer(entries, 0)
    for start in range(0, 60, 8):
        parts.offer(entries[start : start + 8], start)
    assert whole.held == parts.held
    assert len(whole.held) == 7
    if order.startswith("spread"):
        assert {entry.group for entry in whole.held[:3]} == {0, 1, 2}
    if order == "worst":
        assert whole.held[0].rank_key == max(entry.rank_key for entry in entries)


def test_what_is_chosen_does_not_hold_its_batch():
    choice, batch = Choice(2, "worst"), torch.zeros(50, 3, 8, 8)
    choice.offer([Entry(image, float(i), i) for i, image in enumerate(batch)], 0)
    assert [entry.item.untyped_storage().nbytes() for entry in choice.held] == [3 * 8 * 8 * 4] * 2


def test_galleries_write_down_mistakes_of_each_class_and_right_ones(trainer, tmp_path):
    torch.manual_seed(0)
    net = ResNetMini(3, widths=(4, 8), strides=(1, 1))
    data = Synthetic((40, 21, 90), image_shape=(1, SIZE, SIZE), num_classes=3, batch_size=8, eval_batch_size=7)
    data.classes = ("<cat>", "dog", "a bird with a name that is longer than a caption can be")
    trainer(MisclassifiedGallery(3), GradCAMGallery(3)).test(net, data, verbose=False)
    data.setup("test")
    images, labels = data.datasets["test"].images, data.datasets["test"].labels
    with torch.no_grad():
        predictions = net.eval()(data.normalize(images / 255)).argmax(1)
    contents = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "items").iterdir()}
    assert contents.keys() == {"misclassified_test", "gradcam_test"}
    wrong = predictions != labels
    for name, content in contents.items():
        assert (content["kind"], content["split"], content["seen"]) == ("classified", "test", 90)
        assert content["mistakes"] == int(wrong.sum())
        items = {item["index"]: item for item in content["items"]}
        assert len(items) == len(content["items"]), "each image once"
        for index, item in items.items():
            assert (item["truth"], item["prediction"]) == (
                data.classes[labels[index]],
                data.classes[predictions[index]],
            )
            assert item["right"] == (not wrong[index])
            shown = np.repeat(images[index].permute(1, 2, 0).numpy(), 3, axis=2)
            assert np.abs(decoded(item["image"]).astype(int) - shown).max() <= 1
        right = [item for item in items.values() if item["right"]]
        assert len(right) == 12
        assert {item["truth"] for item in right} == {data.classes[i] for i in set(labels[~wrong].tolist())}
        assert ("overlay" in content["items"][0]) == (name == "gradcam_test")
    for item in contents["gradcam_test"]["items"]:
        index = item["index"]
        heat = relevance(net, data.normalize(images[[index]] / 255), [int(predictions[index])]).maps[0]
        shown = 255 * overlay(np.repeat(images[index].permute(1, 2, 0).numpy(), 3, axis=2) / 255, heat)
        assert np.abs(decoded(item["overlay"]) - shown).max() <= 2
        assert item["evidence"] == bool(heat.any())
