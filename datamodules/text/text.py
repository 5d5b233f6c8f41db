"""A UTF-8 text as windows of tokens, to predict the next. N tokens of the text, B batch, T context, V vocabulary."""

from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets.utils import download_url

from datamodules.base import Data
from datamodules.batches import Tokens
from datamodules.files import ensure_files
from datamodules.io import find_file
from datamodules.loader import Loader
from datamodules.messages import report
from datamodules.passes import part_of_passes
from datamodules.text.corpus import Corpus
from datamodules.text.ids import Ids, encode_parts
from datamodules.text.tokenizers import Lines, cache_folder, train_tokenizer

# Karpathy 2015, "The Unreasonable Effectiveness of Recurrent Neural Networks"
SHAKESPEARE = "tinyshakespeare/input.txt"
SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/" + SHAKESPEARE
SHAKESPEARE_MD5 = "6fb458f1232090904fb40fe944165e91"


def find_text(file: str, folder: Path) -> Path:
    """The path of a text file, see `datamodules.io.find_file`; tiny Shakespeare is downloaded if it does not exist.

    Raises:
        FileNotFoundError: if it does not exist and cannot be downloaded.
    """
    try:
        return find_file(file, "a UTF-8 text file", folder)
    except FileNotFoundError:
        if file != SHAKESPEARE:
            raise

    def download(target: Path) -> None:
        download_url(SHAKESPEARE_URL, target / Path(file).parent, Path(file).name)

    ensure_files("tiny Shakespeare", folder, {file: SHAKESPEARE_MD5}, {"download": download})
    return folder / file


class Windows(Dataset):
    """Training windows. A pass cuts the text into windows of T + 1 tokens that overlap by one, and shuffles them.

    The start of the first window and the order are random in each pass; an epoch may be a part of a pass, or several
    passes. Everything follows from (seed, epoch), so that a resumed run sees the rest of its windows.

    Args:
        ids: (N,) tokens.
        context: T.
        count: windows of an epoch; None for those of a pass.
        seed: of the random numbers.
    """

    def __init__(self, ids: Ids | Tensor, context: int, count: int | None = None, seed: int = 0) -> None:
        self.ids, self.context, self.seed = ids, context, seed
        self.per_pass = max(1, (len(ids) - context) // context)
        self.count = count or self.per_pass
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        self.starts = part_of_passes(epoch, self.count, self.per_pass, self._pass)

    def _pass(self, number: int) -> Tensor:
        """The starts of the windows of a pass, shuffled."""
        seed = np.random.SeedSequence((self.seed, number)).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(seed) >> 1)
        begin = torch.randint(len(self.ids) - self.per_pass * self.context, (), generator=generator)
        return torch.randperm(self.per_pass, generator=generator).mul_(self.context).add_(begin)

    def __len__(self) -> int:
        return self.count

    def __getitems__(self, indices: Tensor) -> Tokens:
        windows = self.ids[self.starts[indices][:, None] + torch.arange(self.context + 1)]
        return Tokens(windows[:, :-1], windows[:, 1:])


class Tiles(Dataset):
    """The complete text in windows of T that do not overlap: each token except the first is predicted once.

    The last window is padded, with -100 as the label.
    """

    def __init__(self, ids: Ids | Tensor, context: int) -> None:
        self.ids, self.context, self.last = ids, context, len(ids) - 1

    def __len__(self) -> int:
        return (self.last + self.context - 1) // self.context

    def __getitems__(self, indices: Tensor) -> Tokens:
        at = indices[:, None] * self.context + torch.arange(self.context)
        inputs, labels = self.ids[at.clamp(max=self.last)], self.ids[(at + 1).clamp(max=self.last)]
        return Tokens(inputs.where(at < self.last, 0), labels.where(at < self.last, -100))


class Text(Data):
    """One text file: the first 90 % of its characters for training, the last 10 % for validation and for test.

    The file may be larger than the memory: it is read in pieces, and its tokens are in a memory-mapped file
    (`datamodules.text.ids`).

    Args:
        file: path of a UTF-8 text, see `find_text`.
        context: T, the tokens that the model sees.
        tokenizer: "characters" (those of the complete file), "bpe" or "wordpiece" (both trained on the training part);
            see `datamodules.text.tokenizers.train_tokenizer`.
        vocab_size: V of "bpe" and "wordpiece".
        epoch_windows: windows of an epoch; None for one pass over the text.
        options: see `Data`.

    Attributes:
        tokenizer: the `tokenizers.Tokenizer`.
        vocab_size: V.
        ids: the tokens of "train" and "val".

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is not UTF-8, or empty or too short.
    """

    def __init__(
        self,
        file: str = SHAKESPEARE,
        context: int = 256,
        tokenizer: Literal["characters", "bpe", "wordpiece"] = "characters",
        vocab_size: int | None = None,
        epoch_windows: int | None = None,
        batch_size: int = 64,
        eval_batch_size: int = 64,
        **options: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, eval_batch_size=eval_batch_size, **options)
        self.context, self.epoch_windows = context, epoch_windows
        for name, value in (("context", context), ("epoch_windows", epoch_windows)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: expected 1 or more")
        corpus = Corpus(find_text(file, self.data_dir))
        split = int(0.9 * corpus.num_chars)
        learned_from = Lines(f"{corpus.digest}[:{split}]", partial(corpus.lines, 0, split))
        self.tokenizer: Tokenizer = train_tokenizer(
            corpus.alphabet if tokenizer == "characters" else learned_from,
            tokenizer,
            vocab_size,
            cache_dir=cache_folder(),
        )
        self.vocab_size = self.tokenizer.get_vocab_size()
        self.ids = encode_parts(corpus, self.tokenizer, tokenizer, split)
        if len(self.ids["train"]) <= context or len(self.ids["val"]) < 2:
            raise ValueError(
                f"{file} has {len(self.ids['train'])} tokens to train on and {len(self.ids['val'])} for validation: "
                f"expected more than the context of {context}, and 2 or more; take a longer text or a shorter context"
            )

        report(
            f"{corpus.path}: {corpus.num_chars} characters, {len(corpus.alphabet)} different ones; "
            f"{len(self.ids['train'])} tokens train, {len(self.ids['val'])} val"
        )

    def make_datasets(self) -> dict[str, Dataset]:
        train, val = self.ids["train"], self.ids["val"]
        count, seed = self.epoch_windows, self.resolved_seed()
        return {"train": Windows(train, self.context, count, seed), "val": Tiles(val, self.context)}

    def metadata(self) -> dict[str, Any]:
        return {"tokenizer": self.tokenizer.to_str(), "context": self.context}

    def test_dataloader(self) -> Loader:
        return self._loader("val")

    predict_dataloader = test_dataloader
