"""Pictures with sentences: drawn scenes whose sentences are known to be true, and the user's own list.

B batch, S sentences, T tokens, K classes, P phrasings.
"""

import csv
import difflib
import re
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tokenizers import Tokenizer, processors
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.augment import Augmentation
from datamodules.base import ImageData, hold_out
from datamodules.batches import Paired
from datamodules.image_folder import TEST_SHARE, VAL_SHARE, A, ImageFiles
from datamodules.shapes import COLOURS, SHAPES, SIZES, Scene, Shapes
from datamodules.text import read_text
from datamodules.tokenisers import UNKNOWN, train_tokenizer

# Each split has phrasings of its own, so that a net has to read rather than to know sentences by heart. Every word of
# those held out occurs in training.
PHRASINGS = {
    "train": (
        "a {size} {colour} {shape}",
        "there is a {size} {colour} {shape} in this picture",
        "this is a {colour} {shape} and it is {size}",
        "the {shape} in the picture is {size} and {colour}",
        "one can see a {shape} that is {colour} and {size}",
        "the picture shows a {size} {shape} in {colour}",
        "a {shape} of {colour} colour and {size} size",
        "here a {colour} {shape} of {size} size is drawn",
        "someone drew a {shape} in {colour} and made it {size}",
        "what we see here is {size} and {colour} and it is a {shape}",
        "look at this {size} {shape} and its {colour} colour",
        "it is {colour} and {size} and it is a {shape}",
    ),
    "val": (
        "here is a {shape} and it is {size} and {colour}",
        "this picture shows a {colour} {shape} of {size} size",
    ),
    "test": (
        "a picture of one {size} {shape} in {colour}",
        "someone made this {shape} {colour} and {size}",
        "we can see that the {colour} {shape} is {size}",
        "the {size} {shape} drawn here is {colour}",
    ),
}
ZOOM = 2  # pictures are windows of scenes that are this much larger, so that small shapes have enough pixels
PADDING, END = "[PAD]", "[EOS]"


def phrase(phrasing: str, words: tuple[str, str, str]) -> str:
    """The sentence of a phrasing for (size, colour, shape).

    >>> phrase("there is a {colour} {shape}", ("small", "orange", "star"))
    'there is an orange star'
    """
    text = phrasing.format(**dict(zip(("size", "colour", "shape"), words, strict=True)))
    return re.sub(r"\ba (?=[aeiou])", "an ", text)


def word_tokenizer(sentences: Iterable[str]) -> Tokenizer:
    """A token for each word and mark of the sentences, in lower case; an end behind each, then padding."""
    tokenizer = train_tokenizer("\n".join(sentences), "words", special_tokens=(PADDING, UNKNOWN, END))
    end = tokenizer.token_to_id(END)
    tokenizer.post_processor = processors.TemplateProcessing(f"$A {END}", special_tokens=[(END, end)])
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(PADDING), pad_token=PADDING)
    return tokenizer


def encode_sentences(tokenizer: Tokenizer, sentences: Iterable[str]) -> tuple[Tensor, Tensor]:
    """Sentences -> tokens (S, T) int64, padded at the end, and their mask (S, T), false at padding."""
    found = tokenizer.encode_batch(list(sentences))
    return torch.tensor([e.ids for e in found]), torch.tensor([e.attention_mask for e in found], dtype=torch.bool)


def check_words(tokenizer: Tokenizer, sentence: str) -> None:
    """Raises ValueError if a sentence has a word that the net never saw, for which it could only guess."""
    known = tokenizer.get_vocab()
    found = tokenizer.encode(sentence)
    for token, (start, end) in zip(found.tokens, found.offsets, strict=True):
        if token == UNKNOWN:
            near = difflib.get_close_matches(sentence[start:end].lower(), known, 3)
            raise ValueError(
                f"the net never saw the word {sentence[start:end]!r}: expected words of its training sentences; "
                + (f"nearest: {', '.join(near)}" if near else f"such as {', '.join(sorted(known)[:30])}")
            )
    if len(found.tokens) < 2:
        raise ValueError(f"the sentence {sentence!r} is empty: expected some words")


class PairedInMemory(Dataset):
    """Pictures (N, C, H, W) uint8 with sentences (N, T), their mask, and labels (N,)."""

    def __init__(self, *columns: Tensor) -> None:
        self.columns = Paired(*columns)

    def __len__(self) -> int:
        return len(self.columns.label)

    def __getitem__(self, index: int) -> Paired:
        return self.__getitems__(index)

    def __getitems__(self, indices: Tensor) -> Paired:
        return Paired(*(column[indices] for column in self.columns))


class Captioned(ImageData):
    """Base of the datamodules whose pictures have sentences.

    Attributes:
        tokenizer: of the training sentences.
        vocab_size: number of its tokens.
    """

    tokenizer: Tokenizer

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.get_vocab_size()

    def card(self) -> dict[str, Any]:
        return super().card() | {"tokenizer": self.tokenizer.to_str()}

    def sentences(self, input_ids: Tensor) -> list[str]:
        """Tokens (S, T) -> sentences."""
        texts = self.tokenizer.decode_batch(input_ids.tolist())
        return [re.sub(r" (?=[.,;:!?])", "", text) for text in texts]


class Captions(Captioned):
    """Drawn scenes of one shape each, and a sentence that tells its size, colour and shape. No files are needed.

    The classes are all combinations. The phrasings of validation and test are held out, and so, if asked for, are
    some of the combinations.

    Args:
        size: side of the pictures in pixels.
        train_size, val_size, test_size: how many; the same pictures whatever the seed of a run.
        shapes, colours: to choose from.
        new: how many pairs of colour and shape are never trained, from all sizes.
        batch_size, eval_batch_size, augment, watch_test, seed: as in `ImageData`.

    Attributes:
        new_classes: the labels that are never trained.

    Raises:
        ValueError: for an unknown shape or colour, or if `new` would leave a colour or a shape unseen.

    >>> Captions().classes[:3]
    ('small red circle', 'small red square', 'small red triangle')
    """

    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

    def __init__(
        self,
        size: int = 48,
        train_size: int = 6000,
        val_size: int = 500,
        test_size: int = 2000,
        shapes: tuple[str, ...] = SHAPES,
        colours: tuple[str, ...] = tuple(COLOURS),
        new: int = 0,
        batch_size: int = 128,
        eval_batch_size: int = 250,
        augment: list[Augmentation] | None = None,
        watch_test: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__(None, batch_size, eval_batch_size, val_size, augment, watch_test, seed)
        self.drawn = Shapes(ZOOM * size, train_size, val_size, test_size, 1, 1, shapes, colours)
        self.image_shape = (3, size, size)
        self.words = list(product(SIZES, colours, shapes))
        self.classes = tuple(" ".join(words) for words in self.words)
        self.tokenizer = word_tokenizer(self.phrased("train").flat)
        pairs = [(colours[i % len(colours)], shapes[(i + i // len(colours)) % len(shapes)]) for i in range(new)]
        trained = set(product(colours, shapes)) - set(pairs)
        if new < 0 or {colour for colour, _ in trained} != set(colours) or {s for _, s in trained} != set(shapes):
            raise ValueError(f"new is {new}: expected 0 or more, and each colour and shape left in training")
        self.new_classes = [label for label, (_, *pair) in enumerate(self.words) if tuple(pair) in pairs]

    def phrased(self, split: str) -> np.ndarray:
        """The sentences (P, K) of a split: each phrasing of each class."""
        return np.array([[phrase(phrasing, words) for words in self.words] for phrasing in PHRASINGS[split]])

    def prompts(self, split: str) -> tuple[Tensor, Tensor]:
        """The sentences of a split to choose from: tokens (P, K, T) and their mask (P, K, T)."""
        texts = self.phrased(split)
        return tuple(part.unflatten(0, texts.shape) for part in encode_sentences(self.tokenizer, texts.flat))

    def split(self) -> dict[str, Dataset]:
        return {split: self._paired(split) for split, count in self.drawn.sizes.items() if count}

    def _paired(self, split: str) -> PairedInMemory:
        texts, draw = self.phrased(split), np.random.default_rng(list(PHRASINGS).index(split))
        scenes = [(self.window(scene, draw), self.words.index(scene.words[0])) for scene in self.drawn.scenes(split)]
        if split == "train":
            scenes = [scene for scene in scenes if scene[1] not in self.new_classes]
        images, labels = zip(*scenes, strict=True)
        tokens = encode_sentences(self.tokenizer, texts[draw.integers(len(texts), size=len(labels)), labels])
        return PairedInMemory(torch.stack(images), *tokens, torch.tensor(labels))

    def window(self, scene: Scene, draw: np.random.Generator) -> Tensor:
        """A part of the scene that holds its shape, (3, S, S)."""
        size, whole = self.image_shape[1], scene.image.shape[1]
        low = np.ceil(scene.boxes[0, 2:].numpy() - size).clip(0).astype(int)
        high = np.floor(scene.boxes[0, :2].numpy().clip(0, whole - size)).astype(int)
        left, top = draw.integers(low, high, endpoint=True)
        return scene.image[:, top : top + size, left : left + size]


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


def stack(samples: list[Paired]) -> Paired:
    """Samples -> a batch."""
    return Paired(*map(torch.stack, zip(*samples, strict=True)))


class CaptionList(Captioned):
    """Pictures of your own with sentences: a file of two columns, the path of a picture and a sentence.

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
        augment: list[Augmentation] | None = None,
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
        num_workers: int = 2,
        watch_test: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__(None, batch_size, eval_batch_size, 0, augment, watch_test, seed)
        self.file, self.num_workers, self.mean, self.std = Path(file), num_workers, tuple(mean), tuple(std)
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

    def split(self) -> dict[str, Dataset]:
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

    def loading(self) -> dict:
        return {"collate": stack, "num_workers": self.num_workers, "pin_memory": torch.cuda.is_available()}


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
    """Pictures and sentences of a list, see `CaptionList`, which names the errors too."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there: expected a CSV or TSV file of pictures and sentences")
    lines = read_text(str(file), file.parent).splitlines()
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
