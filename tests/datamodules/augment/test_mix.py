"""Mixup, CutMix and RICAP: each result is reconstructed from samples of the batch, and the shares from the labels."""

import pytest
import torch
from scipy import stats
from torch.nn.functional import one_hot

from datamodules.augment.images import Flip
from datamodules.augment.mix import RICAP, CutMix, MixAugmentation, Mixup, beta
from datamodules.batches import Labelled
from datamodules.boxes.shapes import Shapes
from helpers import Synthetic, fingerprint_of_global_randomness, record

B, K, H, W = 24, 30, 9, 13  # K > B: each sample has its own class, so the labels identify the two that are mixed
KINDS = pytest.mark.parametrize("kind", [Mixup, CutMix, RICAP])
PAIRS = pytest.mark.parametrize("kind", [Mixup, CutMix])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(n: int = B, channels: int = 3) -> Labelled:
    """Random images, and a permutation of the classes 0 to n - 1."""
    draw = generator(99)
    return Labelled(torch.rand(n, channels, H, W, generator=draw), torch.randperm(n, generator=draw))


def mixed_pairs(before: Labelled, after: Labelled) -> list[tuple[int, int, float]]:
    """For each row the sample itself, its partner (itself if it has none) and the share of the sample."""
    found = []
    for i, shares in enumerate(after.label):
        others = {int(k) for k in shares.nonzero()} - {int(before.label[i])}
        assert len(others) <= 1, "a row has more than two classes"
        partner = before.label.tolist().index(others.pop()) if others else i
        found.append((i, partner, float(shares[before.label[i]])))
    return found


def is_rectangle(mask: torch.Tensor) -> bool:
    return torch.equal(mask, mask.any(1, keepdim=True) & mask.any(0, keepdim=True))


@KINDS
class TestAll:
    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_images_keep_shape_dtype_and_range_and_labels_become_shares(self, kind, channels, dtype):
        before = batch(channels=channels)
        before = before._replace(image=before.image.to(dtype))
        unchanged = before.image.clone(), before.label.clone()
        after = kind(K)(before, generator())
        assert (after.image.shape, after.image.dtype) == (before.image.shape, dtype)
        assert after.image.min() >= 0
        assert after.image.max() <= 1
        assert (after.label.shape, after.label.dtype) == ((B, K), torch.float32)
        assert after.label.min() >= 0
        torch.testing.assert_close(after.label.sum(1), torch.ones(B))
        assert torch.equal(before.image, unchanged[0])
        assert torch.equal(before.label, unchanged[1])

    def test_with_p_0_images_stay_and_labels_become_one_hot(self, kind):
        for seed in range(5):
            after = kind(K, p=0.0)(batch(), generator(seed))
            assert torch.equal(after.image, batch().image)
            assert torch.equal(after.label, one_hot(batch().label, K).float())

    def test_a_batch_is_mixed_with_probability_p(self, kind):
        mix, draw = kind(K, p=0.3), generator()
        count = sum(not torch.equal(mix(batch(4), draw).image, batch(4).image) for _ in range(600))
        assert 140 < count < 220  # 180 expected, standard deviation 11

    def test_class_indices_and_one_hot_labels_give_the_same(self, kind):
        soft = one_hot(batch().label, K)
        for labels in (soft.float(), soft.double()):
            for one, other in zip(
                kind(K)(batch(), generator(1)), kind(K)(batch()._replace(label=labels), generator(1)), strict=True
            ):
                assert torch.equal(one, other)

    def test_a_second_mix_mixes_the_shares_of_the_first(self, kind):
        once = kind(K)(batch(), generator(1))
        twice = kind(K)(once, generator(2))
        torch.testing.assert_close(twice.label.sum(1), torch.ones(B))
        assert (twice.label > 0).sum(1).max() > (once.label > 0).sum(1).max()

    def test_it_is_a_function_of_the_generator_and_leaves_the_global_randomness_as_it_is(self, kind):
        before = fingerprint_of_global_randomness()
        results = [kind(K)(batch(), generator(seed)) for seed in (1, 1, 2)]
        assert fingerprint_of_global_randomness() == before
        assert all(torch.equal(one, other) for one, other in zip(results[0], results[1], strict=True))
        assert not torch.equal(results[0].image, results[2].image)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"num_classes": 0}, "num_classes is 0: expected 1 or more"),
            ({"alpha": 0.0}, "alpha is 0.0 and p 1.0: expected alpha above 0"),
            ({"alpha": -1.0}, "alpha is -1.0"),
            ({"alpha": float("nan")}, "alpha is nan"),
            ({"alpha": float("inf")}, "alpha is inf"),
            ({"p": -0.1}, r"p -0.1: expected .* p in 0..1"),
            ({"p": 1.1}, r"p 1.1: expected .* p in 0..1"),
        ],
    )
    def test_arguments_out_of_range_are_errors(self, kind, options, message):
        with pytest.raises(ValueError, match=message):
            kind(**({"num_classes": K} | options))

    @pytest.mark.parametrize(
        ("label", "message"),
        [
            (torch.tensor([0, 5, 2]), "labels are 0 to 5 and num_classes is 5: expected labels of 0 to 4; set num_cl"),
            (torch.tensor([0, -1, 2]), "labels are -1 to 2 and num_classes is 5"),
            (torch.rand(3, 4), r"labels have the shape \(3, 4\) and num_classes is 5: expected \(B,\) or \(B, 5\)"),
            (torch.rand(3, 5, 1), r"labels have the shape \(3, 5, 1\)"),
        ],
    )
    def test_labels_that_do_not_fit_num_classes_are_one_clear_error(self, kind, label, message):
        with pytest.raises(ValueError, match=message) as caught:
            kind(5)(batch(3)._replace(label=label), generator())
        assert "\n" not in str(caught.value)

    def test_a_number_of_classes_other_than_the_datas_is_refused_in_setup(self, kind):
        message = f"num_classes of {kind.__name__} is 12, but the data have 10 classes: .* leave it out"
        with pytest.raises(ValueError, match=message):
            Synthetic(augment=[Flip(), kind(12)]).setup("fit")
        Synthetic(augment=[Flip(), kind(10)]).setup("fit")

    def test_the_number_of_classes_is_taken_from_the_data(self, kind):
        seen = record(Synthetic(image_shape=(3, 8, 8), num_classes=7, batch_size=8, augment=[kind()])).seen
        assert {batch.label.shape for batch in seen["train"]} == {(8, 7)}
        with pytest.raises(ValueError, match=f"{kind.__name__} does not know the number of classes: .* give it"):
            kind()(batch(), generator())

    def test_batches_of_boxes_are_refused_in_setup(self, kind):
        with pytest.raises(ValueError, match=f"{kind.__name__} mixes .* classes, but the batches are Boxed") as caught:
            Shapes(size=32, train_size=2, val_size=0, test_size=0, augment=[kind(3)]).setup("fit")
        assert "\n" not in str(caught.value)

    def test_a_datamodule_mixes_training_batches_only(self, kind):
        seen = record(Synthetic(image_shape=(3, 8, 8), batch_size=8, augment=[Flip(), kind(10)], seed=1)).seen
        assert {batch.label.shape for batch in seen["train"]} == {(8, 10)}
        assert {batch.label.dtype for batch in seen["val"]} == {torch.int64}


@PAIRS
class TestPairs:
    def test_each_sample_has_its_own_share_and_each_is_a_partner_once(self, kind):
        pairs = mixed_pairs(batch(), after := kind(K)(batch(), generator(3)))
        assert sorted(partner for _, partner, _ in pairs) == list(range(B))
        assert len({share for _, _, share in pairs}) > B // 2
        assert (after.image != batch().image).flatten(1).any(1).sum() > B // 2

    def test_a_single_sample_is_mixed_with_itself_and_stays_as_it_is(self, kind):
        for seed in range(20):
            after = kind(K)(batch(1), generator(seed))
            assert torch.equal(after.image, batch(1).image)
            assert torch.equal(after.label, one_hot(batch(1).label, K).float())

    def test_shares_of_0_and_1_are_possible(self, kind):
        partner = batch().image.flip(0)
        for share in (0.0, 1.0):
            mixed, actual = kind(K).pair(batch().image, partner, torch.full((B,), share), generator())
            if kind is Mixup or share == 1:
                assert torch.equal(mixed, batch().image if share else partner)
                assert actual.unique().tolist() == [share]
            else:  # a rectangle of the size of the image, about any center, covers a quarter of it or more
                assert 0 <= actual.min() <= actual.max() <= 0.75


def test_mixup_is_the_weighted_mean_of_two_images_with_the_weights_of_the_labels():
    before = batch()
    for seed in range(5):
        after = Mixup(K)(before, generator(seed))
        for i, partner, share in mixed_pairs(before, after):
            expected = share * before.image[i] + (1 - share) * before.image[partner]
            torch.testing.assert_close(after.image[i], expected)


def test_cutmix_pastes_a_rectangle_whose_area_is_the_share_of_the_partner():
    before, areas = batch(), set()
    for seed in range(20):
        after = CutMix(K)(before, generator(seed))
        for i, partner, share in mixed_pairs(before, after):
            pasted = (after.image[i] != before.image[i]).all(0)  # (H, W); random images differ in every pixel
            assert torch.equal(after.image[i], torch.where(pasted, before.image[partner], before.image[i]))
            assert is_rectangle(pasted)
            if partner != i:
                assert 1 - share == pytest.approx(pasted.float().mean().item(), abs=1e-6)
                areas.add(int(pasted.sum()))
    assert len(areas) > 30


def test_cutmix_pastes_rectangles_of_the_images_proportions_about_any_center():
    """Where the rectangle is not clipped, its sides are the image's times sqrt(1 - share), up to rounding."""
    zeros, share = torch.zeros(4000, 1, 40, 60), torch.full((4000,), 0.75)
    mixed, actual = CutMix(2).pair(zeros, zeros + 1, share, generator())
    pasted = mixed[:, 0] > 0
    rows, columns = pasted.any(2), pasted.any(1)
    torch.testing.assert_close(1 - actual, pasted.float().mean((1, 2)))
    assert set(rows.sum(1).tolist()) <= set(range(10, 22))  # 20, or less where it is clipped
    assert set(columns.sum(1).tolist()) <= set(range(15, 32))
    inside = ~(rows[:, [0, -1]].any(1) | columns[:, [0, -1]].any(1))
    assert inside.float().mean().item() == pytest.approx(0.25, abs=0.06)  # both centers in the middle half
    assert (1 - actual[inside]).mean().item() == pytest.approx(0.25, abs=0.01)
    center = (rows[inside].float() @ torch.arange(40.0)) / rows[inside].sum(1)
    assert center.min() < 11.5
    assert center.max() > 27.5


def places(n: int = B) -> Labelled:
    """Images whose channels are the sample, the row and the column of each pixel, as parts of 64; a class each."""
    sample, row, column = (torch.arange(float(length)) / 64 for length in (n, H, W))
    grids = torch.meshgrid(sample, row, column, indexing="ij")
    return Labelled(torch.stack(grids, 1), torch.arange(n))


def of_parts(sample: torch.Tensor, row: torch.Tensor, column: torch.Tensor, h: int, w: int) -> bool:
    """Whether each part of an image that is divided at (h, w) shows a piece of one image as it is."""
    still = torch.stack([sample, row - torch.arange(H)[:, None], column - torch.arange(W)])
    parts = [still[:, i, j].flatten(1) for i in (slice(h), slice(h, H)) for j in (slice(w), slice(w, W))]
    return all(bool((part == part[:, :1]).all()) for part in parts)


def test_ricap_patches_parts_of_four_images_and_labels_them_by_area():
    borders, shifts, most = set(), set(), 0
    for seed in range(4):
        after = RICAP(K, alpha=1.0)(places(8), generator(seed))
        for i, (image, share) in enumerate(zip(after.image, after.label, strict=True)):
            sample, row, column = (64 * image).long()
            fitting = [(h, w) for h in range(H + 1) for w in range(W + 1) if of_parts(sample, row, column, h, w)]
            assert fitting
            area = sample.flatten().bincount(minlength=K) / (H * W)
            torch.testing.assert_close(share, area)
            borders |= set(fitting)
            h, w = fitting[0]
            if h and w:
                assert sample[0, 0] == i  # the upper left part is of the sample itself
                shifts |= {(int(row[0, 0]), int(column[0, 0]))}
            most = max(most, int((area > 0).sum()))
    assert most == 4
    assert len(borders) > 15
    assert len(shifts) > 8


def test_ricap_cuts_each_part_out_of_any_place_and_all_images_serve_equally_often():
    after = RICAP(2000, alpha=1000.0)(places(2000), generator())  # divided in the middle: 4 or 5 rows, 6 or 7 columns
    sample, row, column = (64 * after.image).long().unbind(1)
    used = sample[:, [0, 0, -1, -1], [0, -1, 0, -1]]  # (B, 4), by the corners
    assert [each.unique().numel() for each in used.T] == [2000] * 4
    assert torch.equal(used[:, 0], torch.arange(2000))
    for corner, values, size in ((row[:, 0, 0], 6, H), (column[:, 0, 0], 8, W)):
        counts = corner.bincount(minlength=size)[: values - 1]
        assert counts.min() > 0.6 * 2000 / values
        assert corner.max() < values


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0, 3.0, 40.0])
def test_the_shares_have_the_moments_and_the_distribution_of_beta(alpha):
    share = beta(alpha, 40_000, generator(), torch.device("cpu")).double()
    expected = stats.beta(alpha, alpha)
    assert share.min() >= 0
    assert share.max() <= 1
    spread = expected.std() / 200  # standard deviation of the mean
    assert share.mean().item() == pytest.approx(0.5, abs=4 * spread)
    assert share.var().item() == pytest.approx(expected.var(), rel=0.05)
    inner = (0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99)  # for a small alpha almost all shares round to 0 or 1
    for value in inner:
        assert (share <= value).double().mean().item() == pytest.approx(expected.cdf(value), abs=0.011)


def test_mixup_uses_these_shares():
    before = Labelled(torch.rand(2000, 1, 1, 1, generator=generator()), torch.arange(2000))
    for alpha in (0.3, 2.0):
        shares = torch.tensor([share for i, j, share in mixed_pairs(before, Mixup(2000, alpha)(before, generator(1)))])
        assert shares.var().item() == pytest.approx(stats.beta(alpha, alpha).var(), rel=0.12)


def test_a_mix_without_a_definition_cannot_be_made():
    with pytest.raises(TypeError, match=r"abstract method '?mix"):
        MixAugmentation(3)
