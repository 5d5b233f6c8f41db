"""Your own images with sentences."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.base import TEST_SHARE, VAL_SHARE, hold_out
from datamodules.batches import Paired
from datamodules.captions.base import Captioned, encode_sentences, word_tokenizer
from datamodules.images.image_folder import A, ImageFiles
from datamodules.io import read_text


class CaptionedFiles(Dataset):
    """Picture files and a sentence for each: `ImageFiles` with tokens (T,) beside the picture."""

    def __init__(self, files: ImageFiles, input_ids: Tensor, attention_mask: Tensor) -> None:
        self.files, self.input_ids, self.attention_mask = files, input_ids, attention_mask

    def set_epoch(self, epoch: int) -> None:
        self.files.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Paired:
        image, label = self.files[index]
        return Paired(image, self.input_ids[index], self.attention_mask[index], torch.tensor(label))


def collate_pairs(samples: list[Paired]) -> Paired:
    """Samples -> a batch."""
    return Paired(*map(torch.stack, zip(*samples, strict=True)))


class CaptionList(Captioned):
    """Images of your own with sentences: a file of two columns, the path of a picture and a sentence.

    The columns are parted by tabs, or else by commas, with sentences that hold a comma in double quotes. Paths start
    at the folder of the file. A picture may have several lines, and so may a sentence; those pairs then count as
    equal. 15 % of the pictures become validation and 15 % test, always the same ones. Words that training lacks are
    read as one unknown word.

    Args:
        file: CSV or TSV in UTF-8; the first line may be a heading, whose first word is then no file.
        image_size: side of the square that the net sees, in pixels.
        batch_size, eval_batch_size: per device.
        transform: albumentations transforms for training, in order; they must end at `image_size` squared. By default
            a mild crop: mirroring or other colours might make a sentence untrue.
        augment: batched augmentation on the device, after it.
        mean, std: per channel, of pixels in 0..1; by default ImageNet's.
        num_workers: processes that read files.
        watch_test, seed: as in `ImageData`.

    Raises:
        FileNotFoundError: if the file or a picture is not there.
        ValueError: if the file is no UTF-8, has another number of columns, an empty sentence, or too few pictures.
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
        sizes = {"batch_size": batch_size, "eval_batch_size": eval_batch_size}
        super().__init__(val_size=0, mean=mean, std=std, **sizes, **options)
        self.file, self.num_workers = Path(file), num_workers
        self.image_shape = (3, image_size, image_size)
        self.transform = transform or [A.RandomResizedCrop(size=(image_size, image_size), scale=(0.7, 1.0))]
        self.pairs = read_pairs(self.file)
        self.rows = self._divide()
        self.tokenizer = word_tokenizer(self.pairs[i][1] for i in self.rows["train"])

    def _divide(self) -> dict[str, list[int]]:
        pictures = list(dict.fromkeys(path for path, _ in self.pairs))
        if len(pictures) < 3:
            raise ValueError(
                f"{self.file} names {len(pictures)} picture(s): expected 3 or more to divide into train, val and test"
            )
        sizes = [max(1, round(share * len(pictures))) for share in (VAL_SHARE, TEST_SHARE)]
        train, held = hold_out(len(pictures), sum(sizes))
        of = {"train": train, "val": held[: sizes[0]], "test": held[sizes[0] :]}
        place = {pictures[i]: split for split, indices in of.items() for i in indices.tolist()}
        return {split: [i for i, (path, _) in enumerate(self.pairs) if place[path] == split] for split in of}

    def make_datasets(self) -> dict[str, Dataset]:
        labels = equal_pairs(self.pairs)
        _, height, width = self.image_shape
        plain, pipelines = A.Compose([A.Resize(height, width)]), {"train": A.Compose(self.transform)}
        sets = {}
        for split, rows in self.rows.items():
            paths, texts = zip(*(self.pairs[i] for i in rows), strict=True)
            files = ImageFiles(
                list(paths), [labels[i] for i in rows], pipelines.get(split, plain), self.resolved_seed()
            )
            sets[split] = CaptionedFiles(files, *encode_sentences(self.tokenizer, texts))
        return sets

    def loader_options(self) -> dict:
        return {"collate": collate_pairs, "num_workers": self.num_workers, "pin_memory": torch.cuda.is_available()}


def equal_pairs(pairs: list[tuple[Path, str]]) -> list[int]:
    """A label for each pair, equal for those that share the picture or the sentence, in one step or several.

    >>> equal_pairs([("a.png", "a dog"), ("b.png", "a cat"), ("a.png", "one animal"), ("c.png", "A dog")])
    [0, 1, 0, 0]
    """
    numbers = {}  # of all pictures and sentences, the nodes of a graph whose edges are the pairs
    ends = [[numbers.setdefault(end, len(numbers)) for end in (path, ("", text.lower()))] for path, text in pairs]
    edges = coo_array((np.ones(len(ends)), tuple(np.array(ends).T)), shape=(len(numbers),) * 2)
    part = connected_components(edges, directed=False)[1]
    return [int(part[picture]) for picture, _ in ends]


def read_pairs(file: Path) -> list[tuple[Path, str]]:
    """Images and sentences of a list, see `CaptionList`, which names the errors too."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there: expected a CSV or TSV file of pictures and sentences")
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
                f"{where} has {len(row)} column(s): expected 2, the path of a picture and a sentence, parted by a "
                f"{'tab' if tabs else 'comma'}; put a sentence that holds one into double quotes"
            )
        path, sentence = file.parent / row[0].strip(), " ".join(row[1].split())
        if not path.is_file():
            if reader.line_num == 1 and not path.suffix:
                continue  # the heading
            raise FileNotFoundError(f"{where}: there is no picture {path}; correct the path, or take the line out")
        if not sentence:
            raise ValueError(f"{where} has no sentence for {path.name}: expected some words; add them")
        pairs.append((path, sentence))
    return pairs
