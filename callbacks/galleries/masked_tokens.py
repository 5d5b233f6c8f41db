"""What a masked language model puts in the place of masked tokens. T tokens, M masked places, V vocabulary."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch.nn.functional as F
from lightning import LightningModule, Trainer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from tokenizers import Tokenizer
from torch import Tensor

from callbacks.figures.style import BLACK, BLUE, GREY, VERMILION
from callbacks.galleries.base import Entry, Gallery

COLUMNS, SIZE = 96, 9.0  # letters of a line, points of a letter
WIDE, HIGH = 0.602 * SIZE / 72, 1.75 * SIZE / 72  # of a letter of a monospaced font and of a line, in inches
MARGIN, HEAD = 0.15, 0.72  # inches
RIGHT, WRONG = "#D6E8F5", "#FBE0D0"  # behind blue and vermilion letters

Piece = tuple[str, str, str | None]  # text, colour, background


class MaskedPair(NamedTuple):
    """A pair of segments that was evaluated.

    tokens: (T,) int64, what was shown to the model, without padding.
    border: how many of them are the first segment with its special tokens.
    together: whether the segments do.
    truth, said: by masked place, the token that was there and the one that the model put there.
    """

    tokens: Tensor
    border: int
    together: bool
    truth: dict[int, int]
    said: dict[int, int]


class MaskedTokenGallery(Gallery):
    """Draws pairs of segments with what stands in the masked places, to `pictures/masked_<split>.png`.

    The module's steps return the logits (M, V) of all places that are asked in a batch, row by row; the datamodule has
    a `tokenizer`.

    Args:
        n: how many pairs.
        order: "first" or "worst", see `Gallery`.
        every_n_epochs: see `Gallery`.

    >>> MaskedTokenGallery(4).shown
    []
    """

    orders = ("first", "worst")

    def __init__(self, n: int = 5, order: str = "first", every_n_epochs: int = 0) -> None:
        super().__init__(n, order, every_n_epochs)

    def entries(self, outputs: Any, batch: Any, indices: Iterator[int]) -> list[Entry]:
        """Ranked by cross-entropy in nats, the mean over the masked tokens of a pair."""
        logits = self.output(outputs, "logits", "(M, V) of the masked places").float()
        masked = (batch.labels != -100).cpu()
        counts = masked.sum(1).tolist()
        losses = F.cross_entropy(logits, batch.labels[batch.labels != -100], reduction="none").split(counts)
        predictions = logits.argmax(-1).split(counts)
        entries = []
        for row, index in zip(range(len(masked)), indices, strict=False):
            places = masked[row].nonzero()[:, 0].tolist()
            length = int(batch.attention_mask[row].sum())
            item = MaskedPair(
                batch.input_ids[row, :length],
                border=length - int(batch.token_type_ids[row].sum()),
                together=bool(batch.next_label[row]),
                truth=dict(zip(places, batch.labels[row, places].tolist(), strict=True)),
                said=dict(zip(places, predictions[row].tolist(), strict=True)),
            )
            loss = losses[row].mean().item() if places else 0.0
            entries.append(Entry(item, loss, index, wrong=item.truth != item.said))
        return entries

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        accuracy = trainer.callback_metrics.get(f"{self.split}/mask_acc")
        overall = "" if accuracy is None else f"{100 * float(accuracy):.1f} % of all are right. "
        blocks = [
            (pair, wrap(pieces(pair, trainer.datamodule.tokenizer))) for pair in (entry.item for entry in self.shown)
        ]
        width, height = COLUMNS * WIDE + 2 * MARGIN, HEAD + sum(len(lines) + 2 for _, lines in blocks) * HIGH
        figure = Figure((width, height), facecolor="white")
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        title = f"Masked tokens of the {self.split_name} text"
        legend = f"{overall}Blue: right. Orange, truth → prediction: wrong. ║ next segment. ↵ next line."
        axes.text(MARGIN, 0.12, title, size=13, weight="bold", va="top")
        axes.text(MARGIN, 0.36, legend, size=10, color=GREY, va="top")
        y = HEAD + HIGH / 2
        for pair, lines in blocks:
            right = sum(pair.truth[place] == pair.said[place] for place in pair.truth)
            together = "belong together" if pair.together else "do not belong together"
            text = f"{right} of {len(pair.truth)} right; the segments {together}"
            axes.text(MARGIN, y, text, size=SIZE, color=GREY, va="center", style="italic")
            for i, line in enumerate(lines, 1):
                draw_line(axes, line, y + i * HIGH)
            y += (len(lines) + 2) * HIGH
        self.publish(trainer, f"masked_{self.split}", figure)


def pieces(pair: MaskedPair, tokenizer: Tokenizer) -> Iterator[Piece]:
    """The text of a pair token by token, each as it reads behind the one before it."""
    ids = pair.tokens.tolist()
    for place, token in pair.truth.items():
        ids[place] = token
    for place in range(1, len(ids) - 1):  # between [CLS] and the last [SEP]
        if place == pair.border - 1:
            yield "║", GREY, None
            continue
        truth = read(tokenizer, ids[place - 1], ids[place])
        if place not in pair.truth:
            yield truth, BLACK, None
        elif pair.truth[place] == pair.said[place]:
            yield truth.replace(" ", "␣"), BLUE, RIGHT
        else:
            said = read(tokenizer, ids[place - 1], pair.said[place])
            yield f"{truth}→{said}".replace(" ", "␣"), VERMILION, WRONG


def read(tokenizer: Tokenizer, before: int, token: int) -> str:
    """How a token reads behind another, on one line."""
    head, both = tokenizer.decode([before]), tokenizer.decode([before, token])
    text = both[len(head) :] if both.startswith(head) else tokenizer.decode([token])
    text = "".join(letter if letter.isprintable() else {"\n": "↵"}.get(letter, "�") for letter in text)
    return text.replace("$", "\\$") or tokenizer.id_to_token(token)


def wrap(text: Iterator[Piece]) -> list[list[tuple[int, Piece]]]:
    """Lines of pieces, each with the column in which it begins."""
    lines, column = [[]], 0
    for piece in text:
        if column + len(piece[0]) > COLUMNS and lines[-1]:
            lines.append([])
            column = 0
        lines[-1].append((column, piece))
        column += len(piece[0])
    return lines


def draw_line(axes: Axes, line: list[tuple[int, Piece]], y: float) -> None:
    for column, (text, colour, background) in line:
        x, width = MARGIN + column * WIDE, len(text) * WIDE
        if background:
            axes.add_patch(Rectangle((x, y - 0.42 * HIGH), width, 0.84 * HIGH, facecolor=background, edgecolor="white"))
        weight = "bold" if background else "normal"
        axes.text(x, y, text, size=SIZE, color=colour, weight=weight, family="monospace", va="center_baseline")
