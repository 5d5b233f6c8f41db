"""Any UTF-8 text as windows of tokens, each to predict the next. N tokens of text, B batch, T context."""

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
from datamodules.io import find_file, read_text
from datamodules.loader import Loader
from datamodules.text.tokenizers import cache_folder, encode, train_tokenizer

SHAKESPEARE = (
    "tinyshakespeare/input.txt"  # Karpathy 2015, "The Unreasonable Effectiveness of Recurrent Neural Networks"
)
URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/" + SHAKESPEARE
MD5 = "6fb458f1232090904fb40fe944165e91"


def find_text(file: str, folder: Path) -> Path:
    """The path of a text file, see `datamodules.io.find_file`; tiny Shakespeare is downloaded if it is missing.

    Raises:
        FileNotFoundError: if it is neither there nor can be downloaded.
    """
    if file == SHAKESPEARE and not Path(file).is_file():
        download = {"download": lambda to: download_url(URL, to / Path(file).parent, Path(file).name)}
        ensure_files("tiny Shakespeare", folder, {file: MD5}, download)
    return find_file(file, "a UTF-8 text file", folder)


class Windows(Dataset):
    """Training windows. A pass cuts the text into windows of T + 1 tokens that overlap by one, and mixes them.

    Where the first begins, and the order, are drawn for each pass; an epoch may be a part of a pass or several. All
    follows from (seed, epoch), so that a resumed run sees what it had not seen.

    Args:
        ids: (N,) int64.
        context: T.
        count: windows of an epoch; None for those of a pass.
        seed: of the draws.
    """

    def __init__(self, ids: Tensor, context: int, count: int | None = None, seed: int = 0) -> None:
        self.ids, self.context, self.seed = ids, context, seed
        self.per_pass = max(1, (len(ids) - context) // context)
        self.count = count or self.per_pass
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        numbers = torch.arange(epoch * self.count, (epoch + 1) * self.count)
        passes = [self._pass(p) for p in range(numbers[0] // self.per_pass, numbers[-1] // self.per_pass + 1)]
        first = numbers[0] // self.per_pass * self.per_pass
        self.starts = torch.cat(passes)[numbers - first]

    def _pass(self, number: int) -> Tensor:
        """Where the windows of a pass begin, mixed."""
        seed = np.random.SeedSequence((self.seed, int(number))).generate_state(1, np.uint64)[0]
        draw = torch.Generator().manual_seed(int(seed) >> 1)
        begin = torch.randint(len(self.ids) - self.per_pass * self.context, (), generator=draw)
        return begin + self.context * torch.randperm(self.per_pass, generator=draw)

    def __len__(self) -> int:
        return self.count

    def __getitems__(self, indices: Tensor) -> Tokens:
        windows = self.ids[self.starts[indices][:, None] + torch.arange(self.context + 1)]
        return Tokens(windows[:, :-1], windows[:, 1:])


class Tiles(Dataset):
    """The whole text in windows of T that don't overlap: each token but the first is predicted once.

    The last window is filled up with what is not asked for.
    """

    def __init__(self, ids: Tensor, context: int) -> None:
        missing = -(len(ids) - 1) % context
        self.inputs = torch.cat((ids[:-1], ids.new_zeros(missing))).view(-1, context)
        self.labels = torch.cat((ids[1:], ids.new_full((missing,), -100))).view(-1, context)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitems__(self, indices: Tensor) -> Tokens:
        return Tokens(self.inputs[indices], self.labels[indices])


class Text(Data):
    """One text file: the first 90 % of its characters to train on, the last 10 % for validation, and for test too.

    Args:
        file: path of a UTF-8 text, from here or below `data_dir`.
        context: T, tokens that the model sees at once.
        tokenizer: "characters" (those of the whole file) or "bpe" (trained on the training part), see `tokenisers`.
        vocab_size: of "bpe".
        epoch_windows: windows of an epoch; None for one pass over the text.
        options: see `Data`.

    Attributes:
        tokenizer: the `tokenizers.Tokenizer`.
        vocab_size: V, tokens that it has.

    Raises:
        FileNotFoundError: if the file can't be had.
        ValueError: if it is no UTF-8, empty or too short.
    """

    def __init__(
        self,
        file: str = SHAKESPEARE,
        context: int = 256,
        tokenizer: Literal["characters", "bpe"] = "characters",
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
        text = read_text(find_text(file, self.data_dir))
        split = int(0.9 * len(text))
        material = text if tokenizer == "characters" else text[:split]
        self.tokenizer: Tokenizer = train_tokenizer(material, tokenizer, vocab_size, cache_dir=cache_folder())
        self.vocab_size = self.tokenizer.get_vocab_size()
        self.ids = {"train": text[:split], "val": text[split:]}
        self.ids = {name: encode(self.tokenizer, part) for name, part in self.ids.items()}
        if len(self.ids["train"]) <= context or len(self.ids["val"]) < 2:
            raise ValueError(
                f"{file} has {len(self.ids['train'])} tokens to train on and {len(self.ids['val'])} for validation: "
                f"expected more than the context of {context}, and 2 or more; take a longer text or a shorter context"
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
