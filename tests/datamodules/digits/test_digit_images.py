"""Digits with a second digit, digits that were distorted, and vectors: seeded, renewed in training only, exact."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from datamodules.images.digit_pairs import DigitPairs, PairedDigits
from datamodules.images.distorted_mnist import INK, DistortedDigits, DistortedMNIST
from datamodules.loader import InMemory
from datamodules.vectors import Vectors


def noise(n: int = 40) -> InMemory:
    draw = torch.Generator().manual_seed(0)
    return InMemory(torch.randint(0, 256, (n, 1, 28, 28), generator=draw, dtype=torch.uint8), torch.arange(n) % 10)


def without_files(kind: type, **options):
    """The datamodule with noise in place of MNIST."""

    class Fake(kind):
        def prepare_data(self):
            pass

        def read(self, train):
            return noise(40 if train else 20)

    made = Fake(**({"val_size": 10, "batch_size": 8} | options))
    made.setup("fit")
    return made


def everything(data, split: str):
    dataset = data.datasets[split]
    return dataset.__getitems__(torch.arange(len(dataset)))


def equal(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


DISTORTED = {"canvas": 42, "degrees": 45, "scale": (0.7, 1.2), "shift": 7, "clutter": 3}


@pytest.mark.parametrize(("kind", "options"), [(DigitPairs, {}), (DistortedMNIST, DISTORTED)])
def test_training_is_drawn_anew_from_seed_and_epoch_and_evaluation_is_not(kind, options):
    first, second, other = (without_files(kind, seed=seed, **options) for seed in (0, 0, 1))
    for split in ("train", "val", "test"):
        assert equal(everything(first, split), everything(second, split))
        assert equal(everything(first, split), everything(other, split)) == (split != "train")
    before = {split: everything(first, split) for split in first.datasets}
    for data in (first, second):
        for dataset in data.datasets.values():
            dataset.set_epoch(3)
    for split in first.datasets:
        assert equal(everything(first, split), before[split]) == (split != "train")
        assert equal(everything(first, split), everything(second, split))
    val, test = (first.datasets[split] for split in ("val", "test"))
    drawn = [dataset.addends if kind is DigitPairs else dataset.angles for dataset in (val, test)]
    assert not torch.equal(drawn[0], drawn[1][: len(drawn[0])])


@pytest.mark.parametrize(("kind", "options"), [(DigitPairs, {}), (DistortedMNIST, DISTORTED)])
def test_a_sample_is_the_same_whatever_the_batch(kind, options):
    dataset = without_files(kind, **options).datasets["train"]
    together = dataset.__getitems__(torch.arange(len(dataset)))
    order = torch.tensor([5, 0, 17])
    assert equal(dataset.__getitems__(order), [part[order] for part in together])
    assert equal(dataset[5], [part[5] for part in together])


def test_a_loader_gives_other_digits_in_each_epoch_and_the_same_again_after_resuming():
    data = without_files(DigitPairs)
    loader = data.train_dataloader()
    epochs = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        epochs.append(list(loader))
    fresh = without_files(DigitPairs).train_dataloader()
    fresh.load_state_dict({"epoch": 1, "position": 2})
    assert all(equal(a, b) for a, b in zip(fresh, epochs[1][2:], strict=True))
    assert not torch.equal(torch.cat([b.addend for b in epochs[0]]), torch.cat([b.addend for b in epochs[1]]))


def test_sums_are_sums_and_digits_are_uniform_and_independent():
    images = noise(1).images.expand(20_000, -1, -1, -1)
    pairs = PairedDigits(images, torch.arange(20_000) % 10).__getitems__(torch.arange(20_000))
    assert torch.equal(pairs.total, pairs.label + pairs.addend)
    table = torch.zeros(10, 10).index_put_((pairs.label, pairs.addend), torch.ones(20_000), accumulate=True)
    assert (table - 200).abs().max() < 5 * 200**0.5


@pytest.mark.parametrize("kind", [DigitPairs, DistortedMNIST])
def test_mirrored_digits_are_refused(kind):
    with pytest.raises(ValueError, match="alternating_flip is true: expected false"):
        kind(alternating_flip=True)


def one(**options) -> tuple[DistortedDigits, torch.Tensor, np.ndarray]:
    """A data set of one smooth image, the image as it comes out, and as it is in the data."""
    y, x = np.mgrid[:28, :28]
    image = 255 * np.exp(-(((x - 11) / 4) ** 2) - ((y - 16) / 3) ** 2)
    stored = torch.from_numpy(image.round().astype(np.uint8))[None, None]
    dataset = DistortedDigits(stored, torch.zeros(1, dtype=torch.int64), **options)
    return dataset, dataset.__getitems__(torch.tensor([0])).image[0, 0], stored[0, 0].numpy()


def test_without_distortion_an_image_stays_as_it_is_in_the_middle_of_its_canvas():
    _, same, original = one()
    np.testing.assert_array_equal(same.numpy(), original)
    _, large, _ = one(canvas=60)
    np.testing.assert_array_equal(large[16:44, 16:44].numpy(), original)
    assert large.sum() == original.astype(int).sum()


@pytest.mark.parametrize("seed", range(5))
def test_an_image_is_turned_scaled_and_moved_as_scipy_does_it(seed):
    dataset, found, original = one(canvas=48, degrees=90, scale=(0.7, 1.3), shift=6, seed=seed)
    angle, zoom, (right, down) = dataset.angles[0].item(), dataset.zooms[0].item(), dataset.shifts[0].tolist()
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / zoom  # rows before columns
    center = np.array([23.5 + down, 23.5 + right])
    expected = ndimage.affine_transform(
        np.pad(original.astype(float), 10), matrix, offset=23.5 - matrix @ center, output_shape=(48, 48), order=1
    )
    np.testing.assert_allclose(found.numpy(), expected, atol=1.0)
    assert abs(angle) <= np.pi / 2
    assert 0.7 <= zoom <= 1.3


def test_clutter_consists_of_pieces_of_other_images():
    stored, blank = noise(30), torch.zeros(30, 1, 28, 28, dtype=torch.uint8)
    dataset = DistortedDigits(stored.images, stored.labels, canvas=60, clutter=2, scale=(1e-3, 1e-3))  # no digit
    images = dataset.__getitems__(torch.arange(30)).image
    expected = torch.zeros(30, 60, 60, dtype=torch.uint8)
    for i in range(30):
        for k in range(2):
            (cut_y, cut_x), (y, x) = dataset.cuts[:, i, k].tolist(), dataset.places[:, i, k].tolist()
            assert INK[0] <= min(cut_y, cut_x)
            assert max(cut_y, cut_x) + 6 <= INK[1]
            piece = stored.images[dataset.sources[i, k], 0, cut_y : cut_y + 6, cut_x : cut_x + 6]
            window = expected[i, y : y + 6, x : x + 6]
            window.copy_(torch.maximum(window, piece))
    assert torch.equal(images[:, 0], expected)
    assert not torch.equal(images, F_pad(blank))


def F_pad(images: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(images, (16,) * 4)


def test_mean_and_deviation_are_measured_the_same_for_all_seeds_and_can_be_given():
    first, other = (without_files(DistortedMNIST, seed=seed, **DISTORTED) for seed in (0, 1))
    assert (first.mean, first.std) == (other.mean, other.std)
    assert first.metadata()["mean"] == list(first.mean)
    images = everything(first, "train").image / 255
    assert first.mean[0] == pytest.approx(images.mean().item(), abs=0.02)
    assert first.std[0] == pytest.approx(images.std().item(), abs=0.02)
    assert without_files(DistortedMNIST, mean=(0.5,), std=(0.2,), **DISTORTED).mean == (0.5,)
    assert DistortedMNIST().mean == (0.1307,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"canvas": 0}, "canvas is 0"),
        ({"shift": 30}, "shift 30"),
        ({"clutter": -1}, "clutter -1"),
        ({"scale": (1.2, 0.7)}, r"scale is \(1.2, 0.7\)"),
        ({"clutter_size": 21}, "clutter_size is 21: expected 1 to 20"),
    ],
)
def test_impossible_distortions_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DistortedMNIST(**options)


def test_without_validation_there_is_none():
    assert len(without_files(DistortedMNIST, val_size=0, clutter=2).datasets["val"]) == 0


def test_vectors_are_repeated_in_training_alone():
    data = Vectors([[1.0, 2.0], [3.0, 4.0]], [[0.0], [1.0]], repeats=3)
    data.setup("fit")
    assert [len(data.datasets[split]) for split in ("train", "val", "test")] == [6, 2, 2]
    batch = data.datasets["train"].__getitems__(torch.tensor([3, 4]))
    assert batch.input.tolist() == [[3.0, 4.0], [1.0, 2.0]]
    assert batch.target.tolist() == [[1.0], [0.0]]
    assert data.datasets["train"][3].target.tolist() == [1.0]


@pytest.mark.parametrize(
    ("inputs", "targets", "repeats"),
    [([[1.0]], [], 1), ([[1.0], [1.0, 2.0]], [[0.0], [0.0]], 1), ([[1.0]], [[0.0]], 0)],
)
def test_vectors_that_do_not_fit_are_refused(inputs, targets, repeats):
    with pytest.raises(ValueError, match="expected as many targets as inputs"):
        Vectors(inputs, targets, repeats=repeats)
