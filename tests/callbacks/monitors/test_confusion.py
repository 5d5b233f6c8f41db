"""The confusion matrix and the figures of each class: right, over two processes too, and given to files and loggers.

Run as a script, `python test_confusion.py FOLDER`, this file is two processes: Lightning forks, and the process of
pytest must not be forked.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import LightningModule
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch.utils.data import DataLoader, TensorDataset

import processes
from callbacks.figures.confusion import draw_confusion
from callbacks.monitors.confusion import Confusion
from helpers import quiet_trainer

K, N = 4, 37
draw = torch.Generator().manual_seed(0)
LOGITS, LABELS = torch.randn(N, K, generator=draw), torch.randint(0, K, (N,), generator=draw)


class Told(LightningModule):
    """Predicts what its input says."""

    num_classes = K

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def validation_step(self, batch, batch_idx):
        return {"logits": batch[0]}

    test_step = validation_step

    def training_step(self, batch, batch_idx):
        return self.weight * 0.0

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def loader(labels=LABELS, logits=LOGITS) -> DataLoader:
    return DataLoader(TensorDataset(logits, labels), batch_size=5)


def read(folder: Path, split: str = "test") -> dict:
    return json.loads((folder / "items" / f"confusion_{split}.json").read_text())


def assert_right(found: dict, labels=LABELS, logits=LOGITS) -> None:
    """Compares what was written with scikit-learn."""
    predictions = logits.argmax(1)
    assert found["matrix"] == confusion_matrix(labels, predictions, labels=range(K)).tolist()
    expected = precision_recall_fscore_support(labels, predictions, labels=range(K), zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "count"), expected, strict=True):
        assert [row[name] for row in found["classes"]] == pytest.approx(values.tolist())


def test_it_equals_scikit_learn(trainer, tmp_path, published):
    trainer(Confusion()).test(Told(), loader(), verbose=False)
    found = read(tmp_path)
    assert_right(found)
    assert [row["class"] for row in found["classes"]] == ["0", "1", "2", "3"], "without names, the numbers"
    ((name, _, (columns, rows)),) = published
    assert name == "confusion_test"
    assert (tmp_path / "pictures/confusion_test.png").is_file()
    assert columns == ["class", "precision", "recall", "f1", "count"]
    assert [row[-1] for row in rows] == LABELS.bincount(minlength=K).tolist()


def test_of_mixed_labels_the_largest_share_is_the_truth(trainer, tmp_path):
    shares = torch.full((N, K), 0.1)
    shares[torch.arange(N), LABELS] = 0.7
    trainer(Confusion()).test(Told(), loader(shares), verbose=False)
    assert_right(read(tmp_path))


def test_a_class_that_never_occurs_has_zeros(trainer, tmp_path):
    labels, logits = LABELS % 2, LOGITS.clone()
    logits[:, 3] = -9
    trainer(Confusion()).test(Told(), loader(labels, logits), verbose=False)
    assert_right(read(tmp_path), labels, logits)


def test_at_the_end_of_a_fit_the_last_validation_counts(trainer, tmp_path, published):
    class Changing(Told):
        def validation_step(self, batch, batch_idx):
            return {"logits": batch[0] if self.current_epoch == 2 else -batch[0]}

    callbacks = Confusion(), Confusion(every_n_epochs=2)
    trainer(callbacks[0], max_epochs=3).fit(Changing(), loader(), loader())
    assert_right(read(tmp_path, "val"))
    assert [one.name for one in published] == ["confusion_val"]
    published.clear()
    trainer(callbacks[1], max_epochs=3).fit(Changing(), loader(), loader())
    assert [one.name for one in published] == ["confusion_val"] * 2


def test_without_the_number_of_classes_or_logits_it_says_what_to_do(trainer):
    class Unknown(Told):
        num_classes = None

    class Silent(Told):
        def validation_step(self, batch, batch_idx):
            return None

        test_step = validation_step

    with pytest.raises(ValueError, match=r"number of classes: Unknown .* `num_classes`; .* leave Confusion out"):
        trainer(Confusion()).test(Unknown(), loader(), verbose=False)
    with pytest.raises(ValueError, match=r"found no logits in what the test step returns: expected .* return that"):
        trainer(Confusion()).test(Silent(), loader(), verbose=False)


@pytest.mark.parametrize("number", [2, 10, 40, 100])
def test_the_figure_is_legible(assert_legible, texts_of, number):
    names = [f"class {i} with a $ome what long name" for i in range(number)]
    matrix = np.random.default_rng(0).integers(0, 3, (number, number))
    matrix[0, 0] = 12345
    figure = draw_confusion(matrix, names, "Confusion matrix", "all images")
    assert_legible(figure)
    assert ("12345" in texts_of(figure)) == (number <= 10)


def test_two_processes_count_every_image_once(tmp_path):
    processes.run(__file__, tmp_path)
    found = read(tmp_path)
    even = N - N % 2  # the sampler repeats the last image for the other rank
    repeated = torch.cat([torch.arange(N), torch.arange(even - N + 2)])
    assert_right(found, LABELS[repeated], LOGITS[repeated])


if __name__ == "__main__":
    two = quiet_trainer(devices=2, strategy="ddp_notebook", callbacks=[Confusion()], default_root_dir=sys.argv[1])
    two.test(Told(), loader(), verbose=False)
