"""What is exported of a trained module: its inputs with their free sizes, its outputs, and how they are used.

B batch, C channels, H height, W width, K classes, P predicted boxes, T tokens, V vocabulary, S sentences, D embedding.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from zoo.classification.base import Classifier
from zoo.detection.base import Detector
from zoo.inference.preprocess import CLS, SEP, Images, MaskedTexts, preprocesses
from zoo.language.base import LanguageModel
from zoo.parts.nca import NCA


@dataclass
class Plan:
    """What is exported of a module.

    Args:
        graph: takes the inputs, in their order, and returns the outputs.
        sizes: name of an input -> names of its axes, or their sizes where those are fixed; equal names, equal sizes.
        usual: name of an axis -> its size in training; that of the batch does not matter.
        draw: name of an input -> makes values of a shape.
        outputs: name -> what it is.
        about: what a user needs to know, such as the preprocessing; texts, numbers and lists.
        load: lines of Python that make the inputs, as arrays of NumPy.
        show: a line that shows what came out.
        imports: that these lines need.
        free: names of the axes that may have any size; see `plan`.
    """

    graph: nn.Module
    sizes: dict[str, tuple[str | int, ...]]
    usual: dict[str, int]
    draw: dict[str, Callable[[tuple[int, ...]], Tensor]]
    outputs: dict[str, str]
    about: dict[str, Any]
    load: list[str]
    show: str
    imports: tuple[str, ...] = ()
    free: tuple[str, ...] = ("batch",)

    def inputs(self, **sizes: int) -> tuple[Tensor, ...]:
        """Random inputs of the usual sizes but for those given."""
        known = self.usual | sizes

        def shape(axes: tuple[str | int, ...]) -> tuple[int, ...]:
            return tuple(known[axis] if isinstance(axis, str) else axis for axis in axes)

        return tuple(self.draw[name](shape(axes)) for name, axes in self.sizes.items())

    def larger(self) -> dict[str, int]:
        """Sizes of the free axes that differ from the usual ones and from each other."""
        factors = {name: factor for factor, name in enumerate(self.free, 2) if name != "batch"}
        return {"batch": 1} | {name: self.usual[name] * factor for name, factor in factors.items()}


class Logits(nn.Module):
    """What a classifier says in evaluation, also where it takes further views of some images only.

    A program cannot choose images by what it sees in them: all get further views, and those of some are used.
    """

    def __init__(self, module: Classifier) -> None:
        super().__init__()
        self.module, self.tta_below = copy.copy(module), module.tta_below
        self.module.tta_below = 1.0  # of the copy, which shares all layers

    def forward(self, image: Tensor) -> Tensor:
        if self.tta_below >= 1:
            return self.module(image)
        first = self.module.net(image)
        unsure = first.float().softmax(1).amax(1, keepdim=True) < self.tta_below
        return torch.where(unsure, self.module(image), first)


class Boxes(nn.Module):
    """All boxes that a detector predicts, decoded, with the score of each class."""

    def __init__(self, module: Detector) -> None:
        super().__init__()
        self.module = module

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.module.scored_boxes(self.module(image))


class NextTokens(nn.Module):
    """The logits of the next token at each place of a text."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.module(input_ids)


class MaskedTokens(nn.Module):
    """The logits of the token at each place of a text, some of which are masked."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        return self.module(input_ids, attention_mask, token_type_ids)


class Similarities(nn.Module):
    """The embeddings of images and sentences in one space, and the similarity of each with each."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        images, sentences = self.net.encode_image(image), self.net.encode_text(input_ids, attention_mask)
        return self.net.similarity(images, sentences), images, sentences


class Step(nn.Module):
    """One step of a cellular automaton."""

    def __init__(self, net: NCA) -> None:
        super().__init__()
        self.net = net

    def forward(self, state: Tensor, mask: Tensor) -> Tensor:
        return self.net(state, [mask])


def plan(module: Any, data: dict[str, Any]) -> Plan:
    """How a module is exported; in it the sizes of images and texts are free where the net allows it.

    Args:
        module: in evaluation mode.
        data: what its checkpoint says of its data.

    Raises:
        ValueError: if it is none that makes sense as a program of its own.
    """
    made = preprocesses(data)
    images, texts = made.get("images"), made.get("texts")
    if isinstance(module, (Classifier, Detector)) and images is not None:
        found = _of_images(module, images, [str(name) for name in data["classes"]])
    elif isinstance(module, LanguageModel) and texts is not None:
        found = _of_texts(module, texts, data["tokenizer"])
    elif hasattr(module.net, "encode_text") and images is not None and texts is not None:
        found = _of_both(module, images, texts, data["tokenizer"])
    elif isinstance(module.net, NCA):
        found = _of_automaton(module.net)
    else:
        raise ValueError(
            f"a {type(module).__name__} is not a program of its own: expected a classifier, a detector, a language "
            "model, CLIP or a cellular automaton; what others learn is in the pictures of their run"
        )
    found.about["outputs"] = found.outputs
    found.free = _free_axes(found)
    return found


def _free_axes(plan: Plan) -> tuple[str, ...]:
    """The axes that the module itself takes in other sizes; it is tried, as a net with learned positions does not."""
    names = list(dict.fromkeys(axis for axes in plan.sizes.values() for axis in axes if isinstance(axis, str)))
    plan.free = tuple(names)
    try:
        with torch.inference_mode():
            plan.graph(*plan.inputs(**plan.larger()))
    except (RuntimeError, ValueError):
        return tuple(name for name in names if name in ("batch", "sentences"))
    return plan.free


def _of_images(module: Any, images: Images, classes: list[str]) -> Plan:
    _, height, width = images.image_shape
    if isinstance(module, Detector):
        graph: nn.Module = Boxes(module)
        outputs = {
            "boxes": f"(B, P, 4) xyxy in pixels of the input ({width} x {height}), before non-maximum suppression",
            "scores": "(B, P, K) in 0..1, of each class",
        }
        show = "print(boxes[0][scores[0].max(1) > 0.4])  # of which torchvision.ops.batched_nms keeps one an object"
    else:
        graph, outputs = Logits(module), {"logits": "(B, K); softmax gives probabilities"}
        show = "print(about['classes'][int(logits[0].argmax())])"
    about: dict[str, Any] = {"classes": classes}
    if (stride := getattr(module.net, "stride", 1)) > 1:
        about["image_size"] = f"multiples of {stride} pixels"
    return _with_image(images, graph=graph, outputs=outputs, show=show, about=about)


def _with_image(images: Images, about: dict[str, Any], **rest: Any) -> Plan:
    """A plan with the input `image`."""
    channels, height, width = images.image_shape
    mean, std = list(images.mean), list(images.std)
    opened = f"PIL.Image.open('IMAGE').convert({images.mode!r}).resize(({width}, {height}), 2)"
    return Plan(
        sizes={"image": ("batch", channels, "height", "width")},
        usual={"batch": 2, "height": height, "width": width},
        draw={"image": torch.randn},
        about={"preprocessing": repr(images), "mean": mean, "std": std, **about},
        load=[
            f"pixels = np.asarray({opened}, 'float32').reshape({height}, {width}, {channels}) / 255",
            f"image = ((pixels - {mean}) / {std}).transpose(2, 0, 1)[None].astype('float32')",
        ],
        imports=("PIL.Image",),
        **rest,
    )


def _of_texts(module: LanguageModel, texts: Any, tokenizer: str) -> Plan:
    is_masked = isinstance(texts, MaskedTexts)
    ids, whole = ["input_ids"], "tokenizer.encode('TEXT', add_special_tokens=False).ids"
    load = ["tokenizer = tokenizers.Tokenizer.from_str(about['tokenizer'])", f"input_ids = np.array([{whole}])"]
    if is_masked:
        ids = ["input_ids", "attention_mask", "token_type_ids"]
        load = [
            load[0],
            f"ids, (cls, sep) = {whole}, map(tokenizer.token_to_id, ({CLS!r}, {SEP!r}))",
            "half = (len(ids) + 1) // 2",
            "input_ids = np.array([[cls, *ids[:half], sep, *ids[half:], sep]])",
            "attention_mask, token_type_ids = input_ids >= 0, np.arange(len(ids) + 3)[None] // (half + 2)",
        ]
    return Plan(
        graph=(MaskedTokens if is_masked else NextTokens)(module),
        sizes=dict.fromkeys(ids, ("batch", "tokens")),
        usual={"batch": 2, "tokens": max(2, module.context // 4)},
        draw={"input_ids": _integers(module.vocab_size), "attention_mask": _ones, "token_type_ids": _integers(2)},
        outputs={"logits": f"(B, T, V) of {'the tokens' if is_masked else 'the next tokens'}"},
        about={"preprocessing": repr(texts), "tokenizer": tokenizer, "context": f"2 to {module.context} tokens"},
        load=load,
        show="print(tokenizer.decode(logits[0].argmax(-1).tolist()))",
        imports=("tokenizers",),
    )


def _of_both(module: Any, images: Images, texts: Any, tokenizer: str) -> Plan:
    plan = _with_image(
        images,
        graph=Similarities(module.net),
        outputs={
            "similarity": "(B, S), of each image with each sentence: cosine times scale",
            "image_embedding": "(B, D) of length 1",
            "text_embedding": "(S, D) of length 1",
        },
        about={"preprocessing of texts": repr(texts), "tokenizer": tokenizer},
        show="print((image_embedding @ text_embedding.T)[0])  # the cosine",
    )
    plan.sizes |= {"input_ids": ("sentences", "words"), "attention_mask": ("sentences", "words")}
    plan.usual |= {"sentences": 2, "words": 5}
    plan.draw |= {"input_ids": _integers(module.vocab_size), "attention_mask": _ones}
    plan.imports = ("PIL.Image", "tokenizers")
    plan.load += [
        "text = tokenizers.Tokenizer.from_str(about['tokenizer']).encode('TEXT')",
        "input_ids, attention_mask = np.array([text.ids]), np.array([text.attention_mask]) > 0",
    ]
    return plan


def _of_automaton(net: NCA) -> Plan:
    return Plan(
        graph=Step(net),
        sizes={"state": ("batch", net.channels, "height", "width"), "mask": ("batch", 1, "height", "width")},
        usual={"batch": 2, "height": 8, "width": 8},
        draw={"state": torch.randn, "mask": _half},
        outputs={"next_state": "(B, C, H, W); the first three channels plus 0.5 are the color"},
        about={"preprocessing": f"state (B, C, H, W), zeros at first; mask (B, 1, H, W) of zeros and ones, one with "
               f"probability {net.update_rate:g}, drawn for each step"},
        load=[
            f"state = np.zeros((1, {net.channels}, 128, 128), 'float32')",
            f"mask = (np.random.rand(1, 1, 128, 128) < {net.update_rate:g}).astype('float32')",
        ],
        show="print(next_state[:, :3] + 0.5)  # after some hundred steps the texture",
    )  # fmt: skip


def _integers(end: int) -> Callable[[tuple[int, ...]], Tensor]:
    return partial(torch.randint, end)


def _ones(shape: tuple[int, ...]) -> Tensor:
    return torch.ones(shape, dtype=torch.bool)


def _half(shape: tuple[int, ...]) -> Tensor:
    return (torch.rand(shape) < 0.5).float()
