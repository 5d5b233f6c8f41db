"""What `zoo generate` does, see `zoo.command.verbs.generate`."""

import argparse
from collections.abc import Iterator
from itertools import chain, islice

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from datamodules.text.tokenizers import encode
from zoo.command.checkpoints import checkpoint_of, load_module


def run(args: argparse.Namespace, rest: list[str]) -> int:
    names = ("source", "prompt", "tokens", "temperature", "top_k", "top_p", "seed")
    for piece in generate(**{name: getattr(args, name) for name in names}):
        print(piece, end="", flush=True)
    print()
    return 0


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
        source: recipe, RECIPE@ready, folder of a run, checkpoint, or file of `zoo publish`.
        prompt: what the text begins with.
        tokens: how many follow.
        temperature: 0 takes the most likely token.
        top_k: sample from the k most likely tokens only; 0 from all.
        top_p: nucleus sampling, from the smallest set of tokens with this total probability.
        seed: of the sampling.

    Yields:
        The prompt, then pieces of text as they are generated; a piece may be part of a word or several characters.

    Raises:
        ValueError: if the checkpoint cannot be read or holds no model that generates text, the prompt is empty or has
            an unknown character, or a number is out of range; before any text.
    """
    path = checkpoint_of(source)
    model, data = load_module(path, needs="tokenizer")
    if not hasattr(model, "generate"):
        raise ValueError(
            f"{path} holds a {type(model).__name__}, which generates no text: expected a GPT; see `zoo list`"
        )
    if tokens < 0:
        raise ValueError(f"tokens is {tokens}: expected 0 or more")
    tokenizer = Tokenizer.from_str(data["tokenizer"])
    ids = encode(tokenizer, prompt)
    if not len(ids):
        raise ValueError("the prompt is empty: expected one character or more, such as --prompt ROMEO:")
    generator, stream = torch.Generator().manual_seed(seed), DecodeStream()
    generated = model.generate(
        ids[None], tokens, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator
    )
    first = list(islice(generated, 1))  # here, so that a number out of range is reported before any text
    yield prompt
    for token in chain(first, generated):
        yield stream.step(tokenizer, token.item()) or ""  # nothing yet where a character needs more tokens
