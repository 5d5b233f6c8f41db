"""Pairs of segments with masked tokens, from any text file.

B batch, N pairs, L tokens of a segment at most, T = 2 L + 3 tokens of a sequence, V vocabulary. Sections and appendices
are those of Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding".
"""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from datamodules.base import SPLIT_SEED
from datamodules.batches import Tokens
from datamodules.text.ids import Ids
from datamodules.text.text import SHAKESPEARE, Text
from datamodules.text.tokenizers import UNKNOWN

SPECIAL_TOKENS = ("[PAD]", "[CLS]", "[SEP]", "[MASK]")
MASK_SHARE, RANDOM_SHARE = 0.8, 0.1  # of the chosen tokens (section 3.1, task 1); the rest stay as they are
MIN_PAIRS = 4  # half of the pairs exchange their second segments, for which 2 are needed


def pair_up(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws the half of the pairs that stays together, and the new second segments of the other half.

    The second segments of the other half are exchanged along one cycle: each is used once, and none stays.

    Args:
        count: N, 4 or more.
        generator: of the random numbers.

    Returns:
        (N,) int64, 1 where the pair stays together, and (N,) int64, the pair whose second segment it gets.
    """
    cycle = torch.randperm(count, generator=generator)[: count // 2]
    together, source = torch.ones(count, dtype=torch.int64), torch.arange(count)
    together[cycle], source[cycle] = 0, cycle.roll(1)
    return together, source


def mask_tokens(
    tokens: Tensor, special: Tensor, mask_id: int, draws: Tensor, share: float = 0.15
) -> tuple[Tensor, Tensor]:
    """Replaces random tokens, mostly by the mask token, and makes them the targets (section 3.1, task 1).

    Of each row that has ordinary tokens at least one is chosen.

    Args:
        tokens: (B, T) int64.
        special: (V,) bool, the tokens that are never chosen, and never used as a replacement.
        mask_id: the id of the mask token.
        draws: (3, B, T) in 0..1, uniform: they decide which tokens are chosen, whether they are masked, replaced or
            kept, and by which token they are replaced.
        share: of the ordinary tokens that are chosen.

    Returns:
        The input (B, T), and the labels (B, T): the token where one was chosen, -100 elsewhere.
    """
    choice, action, replacement = draws
    choice = choice.masked_fill(special[tokens], 2.0)
    lowest = choice.min(1, keepdim=True).values
    chosen = (choice < share) | ((choice == lowest) & (lowest < 2))
    ordinary = (~special).nonzero().squeeze(1)
    random = ordinary[(replacement * len(ordinary)).long()]
    inputs = torch.where(chosen & (action < MASK_SHARE), mask_id, tokens)
    inputs = torch.where(chosen & (action >= 1 - RANDOM_SHARE), random, inputs)
    return inputs, tokens.where(chosen, -100)


class Pairs(Dataset):
    """Pairs of segments of a text: [CLS] first [SEP] second [SEP]; an item is one pair, or several short ones.

    A segment is any run of tokens and may end inside a sentence, as in section 3. In training the cuts, the pairs and
    the masks of each epoch are drawn from (seed, epoch, index). For evaluation everything is fixed, and the segments,
    whose lengths differ by at most one token, contain the complete text once.

    Args:
        ids: the tokens of the text.
        special_ids: of [PAD], [CLS], [SEP], [MASK], and of other tokens that are never masked.
        vocab_size: V.
        segment: L.
        pairs: see `SentencePairs`.
        mask: share of the tokens that are chosen.
        train: draw cuts, pairs and masks for each epoch.
        seed: in training.
        short, short_epochs: see `SentencePairs`.

    Raises:
        ValueError: if the text is too short.
    """

    def __init__(
        self,
        ids: Ids | Tensor,
        special_ids: list[int],
        vocab_size: int,
        segment: int = 64,
        pairs: Literal["next", "order"] = "next",
        mask: float = 0.15,
        train: bool = True,
        seed: int = SPLIT_SEED,
        short: int = 16,
        short_epochs: int = 0,
    ) -> None:
        self.ids, self.segment, self.pairs, self.mask = ids, segment, pairs, mask
        self.train, self.seed = train, seed if train else SPLIT_SEED
        self.short, self.short_epochs = short, short_epochs if train else 0
        self.pad_id, self.cls_id, self.sep_id, self.mask_id = special_ids[:4]
        self.special = torch.zeros(vocab_size, dtype=torch.bool)
        self.special[special_ids] = True
        length = 2 * segment
        # In training the first cut is anywhere in the length of one pair, so that this much must remain.
        self.count = (len(ids) - length + 1) // length if train else -(-len(ids) // length)
        if self.count < MIN_PAIRS:
            needed = (MIN_PAIRS + 1) * length - 1 if train else (MIN_PAIRS - 1) * length + 1
            raise ValueError(
                f"the text has {len(ids)} tokens to {'train' if train else 'validate'} on: expected {needed} or more, "
                f"for {MIN_PAIRS} pairs of segments of {segment}; take a longer text or a smaller segment"
            )
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch if self.train else 0
        seed = int(np.random.SeedSequence((self.seed, self.epoch)).generate_state(1)[0])
        generator = torch.Generator().manual_seed(seed)
        start = int(torch.randint(2 * self.segment, (), generator=generator)) if self.train else 0
        length = 2 * self.segment * self.count if self.train else len(self.ids)
        self.per_item = self.segment // self.short if self.epoch < self.short_epochs else 1
        num_pairs = self.count * self.per_item
        whole, rest = divmod(length, 2 * num_pairs)  # apart, as the product would not fit for a very long text
        at = torch.arange(2 * num_pairs + 1)
        self.cuts = start + at * whole + at * rest // (2 * num_pairs)
        self.together, self.source = pair_up(num_pairs, generator)

    def __len__(self) -> int:
        return self.count

    def segments(self, index: int) -> tuple[Tensor, Tensor]:
        """The tokens of the two segments of a pair, before masking."""
        first, second = self._segment(2 * index), self._segment(2 * index + 1)
        if self.pairs == "next":
            return first, self._segment(2 * int(self.source[index]) + 1)
        return (first, second) if self.together[index] else (second, first)

    def _segment(self, number: int) -> Tensor:
        return self.ids[self.cuts[number] : self.cuts[number + 1]]

    def __getitems__(self, indices: Tensor) -> Tokens:
        indices = (indices[:, None] * self.per_item + torch.arange(self.per_item)).flatten()
        cls, sep = torch.tensor([self.cls_id]), torch.tensor([self.sep_id])
        pairs = [self.segments(index) for index in indices.tolist()]
        rows = [torch.cat((cls, first, sep, second, sep)) for first, second in pairs]
        tokens = pad_sequence(rows, batch_first=True, padding_value=self.pad_id)
        position = torch.arange(tokens.size(1))
        mask = position < torch.tensor([[len(row)] for row in rows])
        second = mask & (position >= torch.tensor([[len(first) + 2] for first, _ in pairs]))
        draws = torch.stack([self._draws(index)[:, : tokens.size(1)] for index in indices.tolist()], dim=1)
        inputs, labels = mask_tokens(tokens, self.special, self.mask_id, draws, self.mask)
        return Tokens(inputs, labels, mask, second.long(), self.together[indices])

    def _draws(self, index: int) -> Tensor:
        draw = np.random.default_rng((self.seed, self.epoch, index))
        return torch.from_numpy(draw.random((3, 2 * self.segment + 3), np.float32))


class SentencePairs(Text):
    """One text file as pairs of segments with masked tokens; divided as in `Text`, with fixed pairs for validation.

    Args:
        file: as in `Text`.
        segment: L.
        tokenizer: "bpe" or "wordpiece", trained on the training part.
        vocab_size: V, including special tokens.
        pairs: the change to one half of the pairs, which the model learns to detect: "next", their second segment comes
            from another pair (section 3.1, task 2); "order", their segments are swapped (Lan et al. 2020, "ALBERT",
            section 3.1).
        mask: share of the tokens that are chosen (section 3.1, task 1).
        short, short_epochs: in the first `short_epochs` epochs a pair of segments of L tokens is cut into L / `short`
            pairs of shorter ones, so that a batch has more rows (appendix A.2 trains 90 % of the steps on shorter
            sequences). With fewer tokens to choose from, attention learns sooner which of them are near.
        options: see `Data`.

    Attributes:
        tokenizer: the `tokenizers.Tokenizer`.
        vocab_size: V.
        context: T.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is not UTF-8, or empty or too short, or an argument is out of range.
    """

    def __init__(
        self,
        file: str = SHAKESPEARE,
        segment: int = 64,
        tokenizer: Literal["bpe", "wordpiece"] = "bpe",
        vocab_size: int = 512,
        pairs: Literal["next", "order"] = "next",
        mask: float = 0.15,
        short: int = 16,
        short_epochs: int = 0,
        batch_size: int = 32,
        eval_batch_size: int = 64,
        **options: Any,
    ) -> None:
        if segment < 1 or not 0 < mask < 1 or pairs not in ("next", "order"):
            raise ValueError(
                f"segment is {segment}, mask {mask}, pairs {pairs!r}: expected 1 or more, a share between 0 and 1, and "
                "'next' or 'order'"
            )
        if short < 1 or (short_epochs and segment % short):
            raise ValueError(
                f"short is {short}: expected a divisor of the segment of {segment}, such as {segment // 2}"
            )
        min_vocab_size = 256 + len(SPECIAL_TOKENS)
        if vocab_size < min_vocab_size:
            raise ValueError(
                f"vocab_size is {vocab_size}: expected {min_vocab_size} or more, as there are 256 bytes and "
                f"{len(SPECIAL_TOKENS)} special tokens; raise it"
            )
        super().__init__(
            file=file, context=2 * segment + 3, tokenizer=tokenizer, vocab_size=vocab_size - len(SPECIAL_TOKENS),
            batch_size=batch_size, eval_batch_size=eval_batch_size, **options,
        )  # fmt: skip
        # Added after the text is encoded, so that a "[MASK]" in the text is encoded as ordinary characters.
        self.tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
        self.segment, self.mask = segment, mask
        self.pairs: Literal["next", "order"] = pairs
        self.short, self.short_epochs = short, short_epochs
        self.vocab_size = self.tokenizer.get_vocab_size()

    def make_datasets(self) -> dict[str, Dataset]:
        special = [self.tokenizer.token_to_id(token) for token in (*SPECIAL_TOKENS, UNKNOWN)]
        options: dict[str, Any] = {
            "special_ids": [number for number in special if number is not None], "vocab_size": self.vocab_size,
            "segment": self.segment, "pairs": self.pairs, "mask": self.mask,
        }  # fmt: skip
        for_train: dict[str, Any] = {
            "seed": self.resolved_seed(), "short": self.short, "short_epochs": self.short_epochs,
        }  # fmt: skip
        return {
            "train": Pairs(self.ids["train"], **options, **for_train),
            "val": Pairs(self.ids["val"], **options, train=False),
        }
