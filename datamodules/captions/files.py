"""Your own images with sentences, listed in a CSV or TSV file. T tokens of a sentence."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.base import TEST_SHARE, VAL_SHARE, hold_out
from datamodules.batches import Paired
from datamodules.captions.base import Captioned, encode_sentences, word_tokenizer
from datamodules.duplicates import originals
from datamodules.images.image_files import AREA, ImageFiles
from datamodules.io import find_file, read_text

Pair = tuple[Path, str]  # the path of an image, and a sentence


class CaptionedFiles(Dataset):
    """Image files with one sentence each: `ImageFiles` with tokens (T,) and their mask (T,) for each image."""

    def __init__(self, files: ImageFiles, input_ids: Tensor, attention_mask: Tensor) -> None:
        self.files, self.input_ids, self.attention_mask = files, input_ids, attention_mask

    def set_epoch(self, epoch: int) -> None:
        self.files.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Paired:
        image, label = self.files[index]
        return Paired(image, self.input_ids[index], self.attention_mask[index], label)


def collate_pairs(samples: list[Paired]) -> Paired:
    """Samples -> a batch."""
    return Paired(*map(torch.stack, zip(*samples, strict=True)))


class CaptionList(Captioned):
    """Your own images with sentences: a file of two columns, the path of an image and a sentence.

    The columns are separated by tabs, or else by commas; then a sentence that contains a comma is in double quotes.
    Paths are relative to the folder of the file. An image may be in several lines, and so may a sentence; such pairs
    get the same label. A fixed 15 % of the images become validation and 15 % test. Words that do not occur in training
    share one token.

    Args:
        file: CSV or TSV in UTF-8, see `datamodules.io.find_file`; the first line may be a heading.
        image_size: side of the square that the net sees, in pixels; images of other shapes are stretched.
        batch_size, eval_batch_size: per device.
        transform: albumentations transforms for training, in order; they must end at `image_size` squared. By default
            a mild crop, as a flip or a change of color might make a sentence untrue.
        mean, std: per channel, of pixels in 0..1; by default ImageNet's.
        num_workers: processes that read files.
        options: see `ImageData`; `augment` is applied after `transform`, to batches on the device.

    Raises:
        FileNotFoundError: if the file or an image does not exist.
        ValueError: if the file is not UTF-8, has another number of columns, an empty sentence, or too few images.
    """

    classes = ()

    def __init__(
        self,
        file: str,
        image_size: int = 64,
        batch_size: int = 64,
        eval_batch_size: int = 64,
        transform: list[A.BasicTransform] | None = None,
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
        num_workers: int = 2,
        **options: Any,
    ) -> None:
        super().__init__(
            val_size=0, mean=mean, std=std, batch_size=batch_size, eval_batch_size=eval_batch_size, **options
        )
        self.file = find_file(file, "a CSV or TSV file of images and sentences", self.data_dir)
        self.num_workers = num_workers
        self.image_shape = (3, image_size, image_size)
        self.transform = transform
        pairs = read_pairs(self.file)
        first_of = originals(path for path, _ in pairs)  # under another name it would be another image
        self.pairs = [(first_of[path], text) for path, text in pairs]
        self.rows = self._divide()
        self.tokenizer = word_tokenizer(self.pairs[i][1] for i in self.rows["train"])

    def _divide(self) -> dict[str, list[int]]:
        """The row numbers of each split; all rows of an image are in the same one."""
        images = list(dict.fromkeys(path for path, _ in self.pairs))
        if len(images) < 3:
            raise ValueError(
                f"{self.file} names {len(images)} image(s): expected 3 or more to divide into train, val and test; "
                "add some"
            )
        sizes = [max(1, round(share * len(images))) for share in (VAL_SHARE, TEST_SHARE)]
        train, held_out = hold_out(len(images), sum(sizes))
        parts = {"train": train, "val": held_out[: sizes[0]], "test": held_out[sizes[0] :]}
        split_of = {images[i]: split for split, indices in parts.items() for i in indices.tolist()}
        return {split: [i for i, (path, _) in enumerate(self.pairs) if split_of[path] == split] for split in parts}

    def make_datasets(self) -> dict[str, Dataset]:
        labels = equal_pairs(self.pairs)
        _, height, width = self.image_shape
        augmented = self.transform or [A.RandomResizedCrop(size=(height, width), scale=(0.7, 1.0), **AREA)]
        resized = [A.Resize(height, width, **AREA)]
        enough = (2 * width, 2 * height) if self.transform is None else None  # a crop is at least 0.7 times as wide
        datasets: dict[str, Dataset] = {}
        for split, rows in self.rows.items():
            samples = [(self.pairs[i][0], labels[i]) for i in rows]
            transform = A.Compose(augmented if split == "train" else resized)
            files = ImageFiles(samples, transform, self.image_shape, self.resolved_seed(), enough)
            if split == "train":
                files.check()
            datasets[split] = CaptionedFiles(files, *encode_sentences(self.tokenizer, [self.pairs[i][1] for i in rows]))
        return datasets

    def loader_options(self) -> dict[str, Any]:
        return {"collate": collate_pairs, "num_workers": self.num_workers, "pin_memory": torch.cuda.is_available()}


def equal_pairs(pairs: Sequence[Pair]) -> list[int]:
    """A label for each pair, equal for pairs that share the image or the sentence, directly or through other pairs.

    >>> equal_pairs([("a.png", "a dog"), ("b.png", "a cat"), ("a.png", "one animal"), ("c.png", "A dog")])
    [0, 1, 0, 0]
    """
    numbers: dict[object, int] = {}  # of all images and sentences, the nodes of a graph whose edges are the pairs
    ends = [[numbers.setdefault(end, len(numbers)) for end in (path, ("", text.lower()))] for path, text in pairs]
    edges = coo_array((np.ones(len(ends)), tuple(np.array(ends).T)), shape=(len(numbers),) * 2)
    component = connected_components(edges, directed=False)[1]
    return [int(component[image]) for image, _ in ends]


def read_pairs(file: Path) -> list[Pair]:
    """The images and sentences of a list, with the errors of `CaptionList`."""
    lines = read_text(file).splitlines()
    tabs = "\t" in lines[0]
    reader = csv.reader(lines, delimiter="\t" if tabs else ",", skipinitialspace=True)
    pairs = []
    for row in reader:
        where = f"line {reader.line_num} of {file}"
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != 2:
            raise ValueError(
                f"{where} has {len(row)} column(s): expected 2, the path of an image and a sentence, separated by a "
                f"{'tab' if tabs else 'comma'}; put a sentence that contains one into double quotes"
            )
        path, sentence = file.parent / row[0].strip(), " ".join(row[1].split())
        if not path.is_file():
            if reader.line_num == 1 and not path.suffix:
                continue  # the heading
            raise FileNotFoundError(f"{where}: {path} does not exist: expected an image; correct or remove the line")
        if not sentence:
            raise ValueError(f"{where} has no sentence for {path.name}: expected some words; add them")
        pairs.append((path, sentence))
    return pairs
