"""Drawn scenes: shapes agree with their boxes and words, and a scene is a function of (seed, index)."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from datamodules.boxes.shapes import Shapes
from datamodules.scenes import COLORS, SHAPES, SIZES, _distance, draw_scene
from helpers import fingerprint_of_global_randomness, record


def small(**options) -> Shapes:
    return Shapes(**({"size": 48, "train_size": 12, "val_size": 5, "test_size": 4, "batch_size": 4} | options))


def nearest_color(pixel: torch.Tensor) -> str:
    """The name of the color with the nearest hue, as light and shade only change the brightness."""

    def hue(color) -> np.ndarray:
        centered = np.asarray(color) - np.mean(color)
        return centered / np.linalg.norm(centered)

    seen = hue(pixel.double().numpy())
    return max(COLORS, key=lambda name: hue(COLORS[name]) @ seen)


@settings(max_examples=60, deadline=None)
@given(
    index=st.integers(0, 10**6),
    size=st.integers(32, 128),
    most=st.integers(1, 8),
    overlap=st.floats(0, 0.5),
)
def test_boxes_lie_inside_have_an_area_and_overlap_little(index, size, most, overlap):
    scene = draw_scene(index, size=size, max_objects=most, max_overlap=overlap)
    assert (scene.image.shape, scene.image.dtype) == ((3, size, size), torch.uint8)
    assert scene.boxes.dtype == torch.float32
    assert 1 <= len(scene.boxes) == len(scene.labels) == len(scene.words) <= most
    assert scene.boxes.min() >= 0
    assert scene.boxes.max() <= size
    assert (scene.boxes[:, 2:] - scene.boxes[:, :2]).min() > 0.1 * size * SIZES["small"][0]
    assert box_iou(scene.boxes, scene.boxes).fill_diagonal_(0).max() <= overlap + 1e-4


def test_a_scene_is_a_function_of_seed_and_index():
    before = fingerprint_of_global_randomness()
    first, again = draw_scene(7, seed=1), draw_scene(7, seed=1)
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.boxes, again.boxes)
    assert first.words == again.words
    for other in (draw_scene(8, seed=1), draw_scene(7, seed=2)):
        assert not torch.equal(first.image, other.image)
    assert fingerprint_of_global_randomness() == before


@pytest.mark.parametrize("shape", SHAPES)
def test_the_pixels_that_a_shape_changes_reach_to_its_box_and_no_further(shape):
    off = []
    for index in range(20):
        green, red = (draw_scene(index, max_objects=1, shapes=(shape,), colors=(name,)) for name in ("green", "red"))
        inked = (green.image != red.image).any(0)  # the ground is the same
        columns, rows = (inked.any(dim).nonzero() for dim in (0, 1))
        found = [columns[0].item(), rows[0].item(), columns[-1].item() + 1, rows[-1].item() + 1]
        assert np.allclose(found, green.boxes[0], atol=1.5), index
        off.append((np.asarray(found) - green.boxes[0].numpy()).reshape(2, 2).mean(0))
    assert np.abs(np.mean(off, 0)).max() < 0.25  # pixel (0, 0) covers 0..1


def test_the_words_state_size_color_and_shape():
    for index in range(60):
        scene = draw_scene(index, size=96, max_objects=4, max_overlap=0.0)
        for (size, color, shape), (x0, y0, x1, y1), label in zip(scene.words, scene.boxes, scene.labels, strict=True):
            assert SHAPES[label] == shape
            center = scene.image[:, int(y0 + y1) // 2 - 1 :, int(x0 + x1) // 2 - 1 :][:, :3, :3].float().mean((1, 2))
            assert nearest_color(center / 255) == color
            assert (max(x1 - x0, y1 - y0) > 2 * 96 * SIZES["small"][1]) == (size == "large")


def test_only_the_given_shapes_and_colors_occur():
    for index in range(20):
        scene = draw_scene(index, max_objects=4, shapes=("star", "circle"), colors=("blue",))
        assert {color for _, color, _ in scene.words} == {"blue"}
        assert [("star", "circle")[label] for label in scene.labels] == [shape for _, _, shape in scene.words]


def test_a_scene_may_be_empty():
    scene = draw_scene(0, max_objects=0, min_objects=0)
    assert scene.boxes.shape == (0, 4)
    assert scene.labels.shape == (0,)


def test_the_distance_from_a_square_polygon_is_right():
    square = np.asarray([[1.0, 1], [-1, 1], [-1, -1], [1, -1]])
    x, y = np.meshgrid(np.linspace(-2.01, 2, 23), np.linspace(-2.02, 2, 19))
    beyond_x, beyond_y = np.abs(x) - 1, np.abs(y) - 1
    expected = np.hypot(beyond_x.clip(0), beyond_y.clip(0)) + np.maximum(beyond_x, beyond_y).clip(None, 0)
    np.testing.assert_allclose(_distance(square, x, y), expected, atol=1e-12)


class TestDatamodule:
    def test_it_yields_the_boxes_of_its_scenes(self):
        data = small(watch_test=True)
        seen = record(data).seen
        assert data.classes == SHAPES
        assert data.num_classes == len(SHAPES)
        assert data.image_shape == (3, 48, 48)
        assert [len(batch.boxes) for batch in seen["train"]] == [4, 4, 4]
        batch, scenes = seen["val"][0], data.scenes("val")
        assert all(torch.equal(mine, scene.boxes) for mine, scene in zip(batch.boxes, scenes, strict=True))
        assert all(torch.equal(mine, scene.labels) for mine, scene in zip(batch.labels, scenes, strict=True))
        expected = torch.stack([scene.image for scene in scenes]) / 255
        torch.testing.assert_close(data.denormalize(batch.image), expected, atol=1e-6, rtol=0)

    def test_splits_share_no_scene_and_do_not_depend_on_the_seed_of_a_run(self):
        sets = [small(seed=seed).make_datasets() for seed in (0, 1)]
        assert all(torch.equal(sets[0][name].images, sets[1][name].images) for name in ("train", "val", "test"))
        everything = torch.cat([sets[0][name].images.flatten(1) for name in ("train", "val", "test")])
        assert len(everything.unique(dim=0)) == 12 + 5 + 4

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"shapes": ("circle", "heart")}, "heart"),
            ({"colors": ()}, "colors"),
            ({"size": 8}, "size is 8"),
            ({"min_objects": 5, "max_objects": 2}, "min_objects 5"),
        ],
    )
    def test_arguments_out_of_range_are_errors(self, options, message):
        with pytest.raises(ValueError, match=message):
            small(**options)
