"""What `zoo fill` does, see `zoo.command.verbs.fill`."""

import argparse
import json
from typing import Any

import torch

from zoo.command.checkpoints import checkpoint_of, load_module
from zoo.inference.preprocess import MASK, MaskedTexts, preprocesses


def run(args: argparse.Namespace, rest: list[str]) -> int:
    found = fill(args.source, args.text, top=args.top)
    if args.json:
        print(json.dumps(found, ensure_ascii=False))
        return 0
    print(found["text"])
    for number, candidates in enumerate(found["places"], 1):
        shown = "  ".join(f"{one['token']!r} {one['probability']:.2f}" for one in candidates)
        print(f"{number}: {shown}")
    return 0


def fill(source: str, text: str, top: int = 5) -> dict[str, Any]:
    """Fills the masked places of a text.

    Args:
        source: recipe, RECIPE@ready, folder of a run, checkpoint, or file of `zoo publish`.
        text: with `[MASK]` in it.
        top: tokens for each place.

    Returns:
        `text`, with the most likely tokens in place; and `places`, for each the most likely tokens, as they read, with
        their probabilities.

    Raises:
        ValueError: if the model fills no masks, or the text has none or is too long for it.
    """
    path = checkpoint_of(source)
    model, data = load_module(path, needs="tokenizer")
    encode = preprocesses(data)["texts"]
    if not isinstance(encode, MaskedTexts):
        raise ValueError(
            f"{path} holds a {type(model).__name__}, which fills no masks: expected a BERT; see `zoo list`"
        )
    if top < 1:
        raise ValueError(f"top is {top}: expected 1 or more")
    ids, mask, segments = encode(text)
    places = (ids[0] == encode.mask).nonzero()[:, 0]
    if not len(places):
        raise ValueError(f"the text {text!r} has no {MASK}: expected one or more, such as 'to be or {MASK} to be'")
    with torch.inference_mode():
        logits = model(ids, mask, segments)[0, places].float()
        special = [encode.pad, encode.cls, encode.sep, encode.mask]
        logits[:, special] = -torch.inf  # they were never to be predicted
        best = logits.softmax(-1).topk(min(top, logits.size(-1) - len(special)))
    ids[0, places] = best.indices[:, 0]
    kept = [number for number in ids[0].tolist() if number not in (encode.pad, encode.cls, encode.sep)]
    tokenizer = encode.tokenizer
    return {
        "text": tokenizer.decode(kept),
        "places": [
            [
                {"token": tokenizer.decode([number]), "probability": round(p, 4)}
                for number, p in zip(numbers, probabilities, strict=True)
            ]
            for numbers, probabilities in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ],
    }
