"""The gallery of a masked language model's predictions. T tokens, M masked places, V vocabulary."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch.nn.functional as F
from lightning import LightningModule, Trainer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from tokenizers import Tokenizer
from torch import Tensor

from callbacks.figures.style import BLACK, BLUE, GRAY, VERMILION, add_axes, heading
from callbacks.galleries.base import Gallery
from callbacks.galleries.items import Entry

LETTERS_PER_LINE, FONT_SIZE = 96, 9.0  # points
LETTER_WIDTH, LINE_HEIGHT = 0.602 * FONT_SIZE / 72, 1.75 * FONT_SIZE / 72  # inches, of a monospaced font
MARGIN, HEAD = 0.1, 0.72  # inches
RIGHT_BACKGROUND, WRONG_BACKGROUND = "#D6E8F5", "#FBE0D0"  # of blue and of vermilion letters

Piece = tuple[str, str, str | None]  # text, color, background


class MaskedPair(NamedTuple):
    """A pair of segments that was evaluated.

    tokens: (T,) int64, the model's input without padding.
    border: how many of them are the first segment with its special tokens.
    together: whether the second segment followed the first in the text.
    truth, prediction: masked place -> the original token, and the one that the model predicts.
    """

    tokens: Tensor
    border: int
    together: bool
    truth: dict[int, int]
    prediction: dict[int, int]


class MaskedTokenGallery(Gallery):
    """Draws pairs of segments with the predictions for their masked tokens, to `pictures/masked_<split>.png`.

    Steps return "logits" (M, V) of all masked places of a batch, row by row; the datamodule has a `tokenizer`.

    Args:
        n: pairs to draw.
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
                prediction=dict(zip(places, predictions[row].tolist(), strict=True)),
            )
            loss = losses[row].mean().item() if places else 0.0
            entries.append(Entry(item, loss, index, wrong=item.truth != item.prediction))
        return entries

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        accuracy = trainer.callback_metrics.get(f"{self.split}/mask_acc")
        overall = "" if accuracy is None else f"{100 * float(accuracy):.1f} % of all are right. "
        tokenizer: Tokenizer = trainer.datamodule.tokenizer  # type: ignore[attr-defined]
        blocks = [(entry.item, wrap(pieces(entry.item, tokenizer))) for entry in self.shown]
        width = LETTERS_PER_LINE * LETTER_WIDTH + 2 * MARGIN
        height = HEAD + sum(len(lines) + 2 for _, lines in blocks) * LINE_HEIGHT
        figure = Figure((width, height), facecolor="white")
        legend = f"{overall}Blue: right. Orange, truth → prediction: wrong. ║ next segment. ↵ next line."
        heading(figure, f"Masked tokens of the {self.split_name} text", legend)
        axes = add_axes(figure, 0, 0, width, height, xlim=(0, width), ylim=(height, 0))  # in inches from the top
        axes.set_axis_off()
        y = HEAD + LINE_HEIGHT / 2
        for pair, lines in blocks:
            right = sum(pair.truth[place] == pair.prediction[place] for place in pair.truth)
            together = "belong together" if pair.together else "do not belong together"
            text = f"{right} of {len(pair.truth)} right; the segments {together}"
            axes.text(MARGIN, y, text, size=FONT_SIZE, color=GRAY, va="center", style="italic")
            for i, line in enumerate(lines, 1):
                draw_line(axes, line, y + i * LINE_HEIGHT)
            y += (len(lines) + 2) * LINE_HEIGHT
        self.publish(trainer, f"masked_{self.split}", figure)


def pieces(pair: MaskedPair, tokenizer: Tokenizer) -> Iterator[Piece]:
    """The text of a pair token by token, each as it reads after the token before it."""
    ids = pair.tokens.tolist()
    for place, token in pair.truth.items():
        ids[place] = token
    for place in range(1, len(ids) - 1):  # between [CLS] and the last [SEP]
        if place == pair.border - 1:
            yield "║", GRAY, None
            continue
        truth = read(tokenizer, ids[place - 1], ids[place])
        if place not in pair.truth:
            yield truth, BLACK, None
        elif pair.truth[place] == pair.prediction[place]:
            yield truth.replace(" ", "␣"), BLUE, RIGHT_BACKGROUND
        else:
            prediction = read(tokenizer, ids[place - 1], pair.prediction[place])
            yield f"{truth}→{prediction}".replace(" ", "␣"), VERMILION, WRONG_BACKGROUND


def read(tokenizer: Tokenizer, before: int, token: int) -> str:
    """How a token reads after the token `before`, on one line."""
    head, both = tokenizer.decode([before]), tokenizer.decode([before, token])
    text = both[len(head) :] if both.startswith(head) else tokenizer.decode([token])
    text = "".join(letter if letter.isprintable() else {"\n": "↵"}.get(letter, "�") for letter in text)
    return text.replace("$", "\\$") or tokenizer.id_to_token(token)


def wrap(text: Iterator[Piece]) -> list[list[tuple[int, Piece]]]:
    """Lines of pieces, each with the column in which it begins."""
    column = 0
    lines: list[list[tuple[int, Piece]]] = [[]]
    for piece in text:
        if column + len(piece[0]) > LETTERS_PER_LINE and lines[-1]:
            lines.append([])
            column = 0
        lines[-1].append((column, piece))
        column += len(piece[0])
    return lines


def draw_line(axes: Axes, line: list[tuple[int, Piece]], y: float) -> None:
    """Draws a line of `wrap`, centered at height y."""
    for column, (text, color, background) in line:
        x, width = MARGIN + column * LETTER_WIDTH, len(text) * LETTER_WIDTH
        if background:
            corner, high = (x, y - 0.42 * LINE_HEIGHT), 0.84 * LINE_HEIGHT
            axes.add_patch(Rectangle(corner, width, high, facecolor=background, edgecolor="white"))
        weight = "bold" if background else "normal"
        axes.text(x, y, text, size=FONT_SIZE, color=color, weight=weight, family="monospace", va="center_baseline")
