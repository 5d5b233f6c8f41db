"""Attention by hand: nine tokens of 512 numbers, eight heads, one query at a time.

    python -m experiments.studies.attention_by_hand [FOLDER]

writes attention_by_hand.png and attention_by_hand.csv. The tokens are the nine patches of a photograph, 48 pixels wide,
projected to 512 numbers by a random matrix. Each token is cut into eight parts of 64 numbers, one for each head. In a
head, the query of a token is multiplied by the keys of all nine, divided by sqrt(64), turned into nine weights by
softmax, and these weigh the values; what the heads find is put side by side and mixed by one linear layer (Vaswani et
al. 2017, "Attention Is All You Need", section 3.2). Done in loops and as matrix products of all queries and heads at
once, it gives the numbers of zoo.parts.attention and of torch's `nn.MultiheadAttention`. The figure has the weights of
each head: a row for a query, a column for a key. The table has the steps with their shapes, parameters and
multiplications, and the largest difference of the loops from torch's layer in what a step gives.
"""

import math
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

from callbacks.figures.style import GRAY
from experiments.studies import Row, panels, publish, run
from zoo.parts.attention import MultiHeadAttention

TOKENS, DIM, HEADS, PATCH = 9, 512, 8, 48
WIDTH = DIM // HEADS


def patches() -> Tensor:
    """(TOKENS, PATCH, PATCH, 3) in 0..1, row by row of a photograph."""
    side = 3 * PATCH
    image = torch.tensor(np.array(load_sample_image("flower.jpg")[: 2 * side : 2, 120 : 120 + 2 * side : 2])) / 255
    return image.unfold(0, PATCH, PATCH).unfold(1, PATCH, PATCH).flatten(0, 1).permute(0, 2, 3, 1)


def tokens() -> Tensor:
    """(TOKENS, DIM), each number with mean 0 and standard deviation 1 over the tokens."""
    flat = patches().flatten(1)
    x = flat @ torch.randn(flat.size(1), DIM, generator=torch.Generator().manual_seed(0))
    return (x - x.mean(0)) / x.std(0, correction=0)


def layer() -> MultiHeadAttention:
    """With random weights, of which the queries' and the keys' are large enough for uneven attention."""
    torch.manual_seed(0)
    attention = MultiHeadAttention(DIM, HEADS)
    with torch.no_grad():
        for linear in (attention.query, attention.key):
            linear.weight *= 2
    return attention


def linear(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """A linear layer on one token: weight @ x + bias; (DIM,) -> (DIM,)."""
    return (weight * x).sum(1) + bias


@torch.no_grad()
def by_hand(x: Tensor, attention: MultiHeadAttention) -> dict[str, Tensor]:
    """What each step gives, token by token and head by head."""
    q, k, v = (
        torch.stack([linear(each.weight, each.bias, token) for token in x])
        for each in (attention.query, attention.key, attention.value)
    )
    scores, weights = torch.zeros(2, HEADS, len(x), len(x))
    mixed = torch.zeros(len(x), DIM)
    for head in range(HEADS):
        part = slice(head * WIDTH, (head + 1) * WIDTH)
        for i in range(len(x)):
            for j in range(len(x)):
                scores[head, i, j] = sum(a * b for a, b in zip(q[i, part].tolist(), k[j, part].tolist(), strict=True))
                scores[head, i, j] /= math.sqrt(WIDTH)
            powers = [math.exp(score - max(scores[head, i].tolist())) for score in scores[head, i].tolist()]
            for j in range(len(x)):
                weights[head, i, j] = powers[j] / sum(powers)
                mixed[i, part] += weights[head, i, j] * v[j, part]
    output = torch.stack([linear(attention.out.weight, attention.out.bias, token) for token in mixed])
    return {"query": q, "key": k, "value": v, "scores": scores, "weights": weights, "mixed": mixed, "output": output}


@torch.no_grad()
def at_once(x: Tensor, attention: MultiHeadAttention) -> dict[str, Tensor]:
    """The same by matrix products of all tokens and heads."""
    projections = {"query": attention.query, "key": attention.key, "value": attention.value}
    steps = {name: each(x) for name, each in projections.items()}
    q, k, v = (each.unflatten(-1, (HEADS, WIDTH)).transpose(0, 1) for each in steps.values())  # (HEADS, TOKENS, WIDTH)
    steps["scores"] = q @ k.mT / math.sqrt(WIDTH)
    steps["weights"] = steps["scores"].softmax(-1)
    steps["mixed"] = (steps["weights"] @ v).transpose(0, 1).flatten(1)
    return steps | {"output": attention.out(steps["mixed"])}


@torch.no_grad()
def of_torch(x: Tensor, attention: MultiHeadAttention) -> dict[str, Tensor]:
    """Weights and output of torch's layer with the same parameters."""
    torchs = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    ours = (attention.query, attention.key, attention.value)
    torchs.in_proj_weight.copy_(torch.cat([each.weight for each in ours]))
    torchs.in_proj_bias.copy_(torch.cat([each.bias for each in ours]))
    torchs.out_proj.load_state_dict(attention.out.state_dict())
    output, weights = torchs(x[None], x[None], x[None], average_attn_weights=False)
    return {"weights": weights[0], "output": output[0]}


def table(x: Tensor, attention: MultiHeadAttention) -> list[Row]:
    hand, product, reference = by_hand(x, attention), at_once(x, attention), of_torch(x, attention)
    square = DIM * DIM
    costs = dict.fromkeys(("query", "key", "value", "output"), (square + DIM, TOKENS * square))
    costs |= dict.fromkeys(("scores", "mixed"), (0, TOKENS * TOKENS * DIM)) | {"weights": (0, 0)}
    rows: list[Row] = []
    for step, result in hand.items():
        row: Row = {"step": step, "shape": " x ".join(map(str, result.shape))}
        row |= Row({"parameters": costs[step][0], "multiplications": costs[step][1]})
        row["from matrix products"] = (result - product[step]).abs().max().item()
        row["from torch"] = (result - reference[step]).abs().max().item() if step in reference else None
        rows.append(row)
    return rows


def draw(x: Tensor, attention: MultiHeadAttention) -> Figure:
    titles = ["the nine tokens", *(f"head {head + 1}" for head in range(HEADS))]
    figure, places = panels("Attention weights of nine patches in eight heads", 3, 3, (8, 8.6), titles)
    rows = torch.cat([torch.cat([*line], 1) for line in patches().unflatten(0, (3, 3))])
    places[0].imshow(rows)
    for n in range(TOKENS):
        place = (n % 3 * PATCH + 4, n // 3 * PATCH + 4)
        box = {"facecolor": "black", "alpha": 0.5, "linewidth": 0, "pad": 1.5}
        places[0].text(*place, str(n + 1), color="white", size=9, weight="bold", va="top", bbox=box)
    for axes, weights in zip(places[1:], at_once(x, attention)["weights"], strict=True):
        axes.imshow(weights, cmap="Blues", vmin=0, vmax=0.6)
        axes.set(xticks=range(TOKENS), yticks=range(TOKENS))
        axes.set(xticklabels=range(1, TOKENS + 1), yticklabels=range(1, TOKENS + 1))
    places[0].set(xticks=[], yticks=[])
    places[3].set_ylabel("query", color=GRAY)
    places[7].set_xlabel("key", color=GRAY)
    return figure


def main(folder: Path) -> None:
    x, attention = tokens(), layer()
    publish(folder, "attention_by_hand", draw(x, attention), table(x, attention))


if __name__ == "__main__":
    run(main, __doc__)
