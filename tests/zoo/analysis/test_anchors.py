"""Anchors: never worse than Euclidean k-means, nearly the same for every seed, and a file that a recipe can read."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.cluster import KMeans
from torchvision.ops import box_iou

from helpers import write_voc
from zoo.analysis.anchors import _hill_climb, fit_anchors, iou, mean_iou
from zoo.command.main import main


def like_blood_cells(n: int = 500, seed: int = 0) -> np.ndarray:
    """Sizes like those of red cells, white cells and platelets: three clouds, the first with most boxes."""
    draw = np.random.default_rng(seed)
    kinds = [((0.16, 0.21), 0.85), ((0.34, 0.41), 0.08), ((0.06, 0.08), 0.07)]
    clouds = [draw.normal(1, 0.2, (round(n * share), 2)) * center for center, share in kinds]
    return np.concatenate(clouds).clip(0.01, 1)


sizes = st.lists(st.tuples(*[st.floats(0.01, 1)] * 2), min_size=6, max_size=40).map(np.array)


@given(sizes)
def test_iou_is_that_of_torchvision_for_boxes_with_a_common_corner(wh):
    boxes = torch.tensor(np.concatenate([np.zeros_like(wh), wh], 1))
    np.testing.assert_allclose(iou(wh, wh[:5]), box_iou(boxes, boxes[:5]), rtol=1e-9)


@settings(max_examples=25, deadline=None)
@given(wh=sizes, k=st.integers(1, 6), seed=st.integers(0, 99))
def test_never_worse_than_euclidean_k_means(wh, k, seed):
    if len(np.unique(wh, axis=0)) < k:
        return
    theirs = KMeans(k, n_init=10, random_state=seed).fit(wh).cluster_centers_
    assert mean_iou(wh, fit_anchors(wh, k, starts=2, seed=seed)) >= mean_iou(wh, theirs) - 1e-12


@settings(max_examples=25, deadline=None)
@given(sizes)
def test_a_hill_climb_never_ends_below_its_start(wh):
    for start in wh[:8]:
        assert mean_iou(wh, _hill_climb(wh, start[None])) >= mean_iou(wh, start[None])


@pytest.mark.parametrize("k", [3, 4, 5, 6])
class TestOnLikelySizes:
    def test_better_than_euclidean_k_means_whatever_its_seed(self, k):
        wh = like_blood_cells()
        ours = mean_iou(wh, fit_anchors(wh, k))
        theirs = [mean_iou(wh, KMeans(k, n_init=10, random_state=seed).fit(wh).cluster_centers_) for seed in (5, 6)]
        assert ours > max(theirs)

    def test_other_seeds_agree_within_a_fifth_of_a_percent(self, k):
        wh = like_blood_cells()
        found = [mean_iou(wh, fit_anchors(wh, k, seed=seed)) for seed in range(3)]
        assert max(found) - min(found) <= 0.002

    def test_anchors_are_ordered_by_area_and_the_same_for_the_same_seed(self, k):
        wh = like_blood_cells()
        anchors = fit_anchors(wh, k, starts=3)
        assert anchors.shape == (k, 2)
        assert (np.diff(anchors.prod(1)) >= 0).all()
        np.testing.assert_array_equal(anchors, fit_anchors(wh, k, starts=3))


def test_as_many_anchors_as_sizes_fit_perfectly():
    wh = np.array([[0.1, 0.2], [0.5, 0.5], [0.9, 0.3]])
    assert mean_iou(np.repeat(wh, 4, 0), fit_anchors(np.repeat(wh, 4, 0), 3)) == pytest.approx(1)


@pytest.mark.parametrize("k", [0, 4])
def test_an_impossible_number_of_anchors_is_an_error(k):
    wh = np.array([[0.1, 0.2], [0.5, 0.5], [0.9, 0.3]])
    with pytest.raises(ValueError, match=f"k is {k}: expected 1 to 3"):
        fit_anchors(wh, k)


class TestCommand:
    def test_it_writes_anchors_and_a_figure_of_the_training_boxes(self, tmp_path, capsys):
        write_voc(tmp_path / "cells" / "VOC2007", {"trainval": 20, "test": 10})
        out = tmp_path / "deep" / "out"
        assert main(["anchors", str(tmp_path / "cells"), "--k", "2", "3", "--out", str(out)]) == 0
        content = json.loads((out / "anchors.json").read_text())
        assert {k: np.shape(rows) for k, rows in content["anchors"].items()} == {"2": (2, 2), "3": (3, 2)}
        assert content["unit"] == "fraction of the image"
        assert content["images"] == 20
        assert content["boxes"] == sum(range(4)) * 5
        assert 0.5 < content["mean_iou"]["2"] < content["mean_iou"]["3"] < 1
        assert np.max(content["anchors"]["3"]) < 32 / 64 + 0.1
        with Image.open(out / "anchors.png") as figure:
            assert min(figure.size) > 500
            assert np.asarray(figure.convert("L")).std() > 10
        assert {path.name for path in out.iterdir()} == {"anchors.json", "anchors.png"}
        assert "k = 3  mean IoU" in capsys.readouterr().out

    def test_relative_paths_are_searched_in_the_data_folder(self, tmp_path, monkeypatch, capsys):
        write_voc(tmp_path / "cells", {"trainval": 8})
        monkeypatch.setenv("ZOO_DATA", str(tmp_path))
        assert main(["anchors", "cells", "--k", "1", "--out", str(tmp_path / "out")]) == 0

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, "does not exist"),
            ("", "is empty"),
            ('{"images": [], "annotations": [], "categories": []}', "no box"),
        ],
    )  # fmt: skip
    def test_bad_input_is_one_line_and_writes_nothing(self, content, message, tmp_path, capsys):
        path = tmp_path / "boxes.json"
        if content is not None:
            path.write_text(content)
        assert main(["anchors", str(path), "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
        assert not (tmp_path / "out").exists()


def test_boxes_that_differ_by_rounding_are_one_size_and_fewer_anchors_are_found_and_told(tmp_path, capfd):
    draw = np.random.default_rng(0)
    noisy = np.array([[0.3, 0.4], [0.1, 0.1]])[draw.integers(2, size=50)] + 1e-9 * draw.standard_normal((50, 2))
    assert len(np.unique(noisy, axis=0)) > 40
    with pytest.raises(ValueError, match="expected 1 to 2"):
        fit_anchors(noisy, 6)
    rows = "\n".join(f"a.jpg,100,100,cat,0,0,{100 * w:.9f},{100 * h:.9f}" for w, h in noisy)
    (tmp_path / "boxes.csv").write_text(f"image_id,width,height,class,xmin,ymin,xmax,ymax\n{rows}\n")
    assert main(["anchors", str(tmp_path / "boxes.csv"), "--k", "1", "6", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "anchors.json").read_text())["anchors"]
    assert list(found) == ["1", "2"]
    assert len({tuple(anchor) for anchor in found["2"]}) == 2
    assert "2 anchors instead" in capfd.readouterr().err
