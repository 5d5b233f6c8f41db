"""`zoo generate`: text from a trained language model."""

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from datamodules.tokenisers import encode
from zoo.checkpoints import newest_checkpoint
from zoo.predict import load


def generate(
    source: str,
    prompt: str = "\n",
    tokens: int = 500,
    temperature: float = 0.8,
    top_k: int = 40,
    top_p: float = 1.0,
    seed: int = 0,
) -> Iterator[str]:
    """Continues a text.

    Args:
        source: checkpoint file or recipe; of a recipe the newest run counts.
        prompt: what the text begins with.
        tokens: how many follow.
        temperature: 0 takes the likeliest token.
        top_k: draw from the k likeliest only; 0 from all.
        top_p: draw from the fewest likeliest that hold this share of the probability.
        seed: of the draws.

    Yields:
        The prompt, then pieces of text as they come; a piece may be a part of a word or several characters.

    Raises:
        ValueError: if the checkpoint can't be read or holds no language model that writes, the prompt is empty or
            has an unknown character, or a number is out of its range; before any text.
    """
    path = Path(source) if source.endswith(".ckpt") else newest_checkpoint(source)
    model, data = load(path, needs="tokenizer")
    if not hasattr(model, "generate"):
        raise ValueError(f"{path} holds a {type(model).__name__}, which writes no text: expected a GPT; see `zoo list`")
    if tokens < 0:
        raise ValueError(f"tokens is {tokens}: expected 0 or more")
    tokenizer = Tokenizer.from_str(data["tokenizer"])
    ids = encode(tokenizer, prompt)
    if not len(ids):
        raise ValueError("the prompt is empty: expected one character or more, such as --prompt ROMEO:")
    generator, stream = torch.Generator().manual_seed(seed), DecodeStream()
    draws = model.generate(ids[None], tokens, temperature, top_k, top_p, generator)
    first = list(islice(draws, 1))  # now, so that a number out of range is told before any text
    yield prompt
    for token in chain(first, draws):
        yield stream.step(tokenizer, token.item()) or ""  # nothing yet where a character needs more tokens
