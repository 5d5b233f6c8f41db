"""Pairs of segments with masked tokens, from any text file.

N pairs, L tokens of a segment at most, T = 2 L + 3 places, V entries of the vocabulary. Sections and appendices are
those of Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding".
"""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from datamodules.base import SPLIT_SEED
from datamodules.batches import Tokens
from datamodules.text.text import SHAKESPEARE, Text
from datamodules.text.tokenizers import UNKNOWN

SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[MASK]")
MASKED, REPLACED = 0.8, 0.1  # of the chosen tokens (section 3.1, task 1); the rest stay as they are
LEAST = 4  # pairs: of half of them the second segments must be able to change places


def pair_up(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Which half of the pairs stays together, and where the second segments of the others come from.

    The second segments of the others change places in one ring: each is used once, and none stays.

    Args:
        count: N, 4 or more.
        generator: decides.

    Returns:
        (N,) int64, 1 where the pair stays together, and (N,) int64, the pair whose second segment it gets.
    """
    ring = torch.randperm(count, generator=generator)[: count // 2]
    together, source = torch.ones(count, dtype=torch.int64), torch.arange(count)
    together[ring], source[ring] = 0, ring.roll(1)
    return together, source


def mask_tokens(
    tokens: Tensor, special: Tensor, mask_id: int, draws: Tensor, share: float = 0.15
) -> tuple[Tensor, Tensor]:
    """Hides some tokens and asks for them (section 3.1, task 1).

    Of each row that has ordinary tokens at least one is chosen.

    Args:
        tokens: (B, T) int64.
        special: (V,) bool, the entries that are never chosen, and never put in another's place.
        mask_id: the entry that says "masked".
        draws: (3, B, T) in 0..1, uniform: who is chosen, what becomes of it, what is put in its place.
        share: of the ordinary tokens that are chosen.

    Returns:
        What is shown (B, T), and what is asked (B, T): the token where one was chosen, -100 elsewhere.
    """
    who, what, by = draws
    who = who.masked_fill(special[tokens], 2.0)
    least = who.min(1, keepdim=True).values
    chosen = (who < share) | ((who == least) & (least < 2))
    ordinary = (~special).nonzero().squeeze(1)
    random = ordinary[(by * len(ordinary)).long()]
    shown = torch.where(chosen & (what < MASKED), mask_id, tokens)
    shown = torch.where(chosen & (what >= 1 - REPLACED), random, shown)
    return shown, tokens.where(chosen, -100)


class Pairs(Dataset):
    """Pairs of segments of a text: [CLS] first [SEP] second [SEP]; an item is one, or several short ones.

    A segment is any run of tokens and may end inside a sentence, as in section 3. In training each epoch cuts
    elsewhere, pairs anew, and masks anew, as (seed, epoch, index) say. For evaluation everything is fixed, and the
    segments, which differ in length by one token at most, hold the whole text once.

    Args:
        ids: (length of the text,) int64.
        special_ids: of [PAD], [CLS], [SEP], [MASK], and of others that are not to be masked.
        vocab_size: V.
        segment: L.
        pairs: see `SentencePairs`.
        mask: share of the tokens that are chosen.
        train: cut, pair and mask anew in each epoch.
        seed: in training.
        short, short_epochs: see `SentencePairs`.

    Raises:
        ValueError: if the text is too short.
    """

    def __init__(
        self,
        ids: Tensor,
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
        # In training the first cut lies anywhere in the length of a pair, for which so much must be left.
        self.count = (len(ids) - length + 1) // length if train else -(-len(ids) // length)
        if self.count < LEAST:
            least, use = (
                ((LEAST + 1) * length - 1, "to train on") if train else ((LEAST - 1) * length + 1, "to validate on")
            )
            raise ValueError(
                f"the text has {len(ids)} tokens {use}: expected {least} or more, for {LEAST} pairs of segments of "
                f"{segment}; take a longer text or a smaller segment"
            )
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch if self.train else 0
        draw = torch.Generator().manual_seed(int(np.random.SeedSequence((self.seed, self.epoch)).generate_state(1)[0]))
        start = int(torch.randint(2 * self.segment, (), generator=draw)) if self.train else 0
        length = 2 * self.segment * self.count if self.train else len(self.ids)
        self.per_item = self.segment // self.short if self.epoch < self.short_epochs else 1
        num_pairs = self.count * self.per_item
        self.cuts = start + torch.arange(2 * num_pairs + 1) * length // (2 * num_pairs)
        self.together, self.source = pair_up(num_pairs, draw)

    def __len__(self) -> int:
        return self.count

    def segments(self, index: int) -> tuple[Tensor, Tensor]:
        """The tokens of the two segments of a pair, before any is masked."""
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
        place = torch.arange(tokens.size(1))
        there = place < torch.tensor([[len(row)] for row in rows])
        second = there & (place >= torch.tensor([[len(first) + 2] for first, _ in pairs]))
        draws = torch.stack([self._draws(index)[:, : tokens.size(1)] for index in indices.tolist()], dim=1)
        shown, asked = mask_tokens(tokens, self.special, self.mask_id, draws, self.mask)
        return Tokens(shown, asked, there, second.long(), self.together[indices])

    def _draws(self, index: int) -> Tensor:
        draw = np.random.default_rng((self.seed, self.epoch, index))
        return torch.from_numpy(draw.random((3, 2 * self.segment + 3), np.float32))


class SentencePairs(Text):
    """One text file as pairs of segments with masked tokens; split as `Text` splits it, validation as fixed as can be.

    Args:
        file, data_dir, batch_size, eval_batch_size, seed: as in `Text`.
        segment: L.
        tokenizer: "bpe" or "wordpiece", trained on the training part.
        vocab_size: V, special tokens among it.
        pairs: what is asked of half of the pairs: "next", that their second segment comes from elsewhere (section 3.1,
            task 2); "order", that their segments are swapped (Lan et al. 2020, "ALBERT", section 3.1).
        mask: share of the tokens that are chosen (section 3.1, task 1).
        short, short_epochs: in the first epochs a pair of segments of L tokens is cut into L / short pairs of shorter
            ones, so that a batch has more rows (appendix A.2 trains 90 % of the steps on shorter sequences). With
            fewer tokens to choose from, attention learns sooner which of them are near.

    Attributes:
        tokenizer: the `tokenizers.Tokenizer`.
        vocab_size: V.
        context: T.

    Raises:
        FileNotFoundError: if the file can't be had.
        ValueError: if it is no UTF-8, empty or too short.
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
                f"short is {short}: expected what divides the segment of {segment}, such as {segment // 2}"
            )
        if vocab_size < 256 + len(SPECIAL):
            raise ValueError(
                f"vocab_size is {vocab_size}: expected {256 + len(SPECIAL)} or more, as there are 256 bytes and "
                f"{len(SPECIAL)} special tokens; raise it"
            )
        context, pieces = 2 * segment + 3, vocab_size - len(SPECIAL)
        super().__init__(
            file, context, tokenizer, pieces, batch_size=batch_size, eval_batch_size=eval_batch_size, **options
        )
        # Last, so that a text that says "[MASK]" has been read as what it says.
        self.tokenizer.add_special_tokens(list(SPECIAL))
        self.segment, self.pairs, self.mask = segment, pairs, mask
        self.short, self.short_epochs = short, short_epochs
        self.vocab_size = self.tokenizer.get_vocab_size()

    def make_datasets(self) -> dict[str, Dataset]:
        special = [self.tokenizer.token_to_id(token) for token in (*SPECIAL, UNKNOWN)]
        special = [number for number in special if number is not None]
        options = special, self.vocab_size, self.segment, self.pairs, self.mask
        train = {"seed": self.resolved_seed(), "short": self.short, "short_epochs": self.short_epochs}
        return {
            "train": Pairs(self.ids["train"], *options, **train),
            "val": Pairs(self.ids["val"], *options, train=False),
        }
