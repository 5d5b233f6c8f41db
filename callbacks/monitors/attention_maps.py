"""Where a transformer attends to: the weights of its attention as maps over the image.

B batch, N heads, T tokens, L layers of attention, H height, W width.
"""

from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from callbacks.figures.callback import class_names, rgb, untouched
from callbacks.figures.grids import caption, cells, draw_image
from callbacks.galleries.classified import ClassifierGallery

COLORMAP = matplotlib.colormaps["inferno"]  # rises evenly in lightness: right for any color vision, and in print
ALPHA = 0.6  # of the map over the image


class AttentionWeights(TorchFunctionMode):
    """While it is active, keeps the weights (B, N, T, S) of every attention that torch computes, in `found`.

    It sees `F.scaled_dot_product_attention`, which modern transformers call, and `F.multi_head_attention_forward`,
    which `torch.nn.MultiheadAttention` calls. The results of the net are those that it has without.

    >>> with AttentionWeights() as weights:
    ...     _ = F.scaled_dot_product_attention(*torch.zeros(3, 1, 2, 5, 4), is_causal=True)
    >>> weights.found[0][0, 0, 1].tolist()
    [0.5, 0.5, 0.0, 0.0, 0.0]
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            self.found.append(softmax_weights(*args, **kwargs))
        if func is F.multi_head_attention_forward:
            wanted = kwargs.get("need_weights", True)
            output, weights = func(*args, **kwargs | {"need_weights": True, "average_attn_weights": False})
            self.found.append(weights if weights.ndim == 4 else weights[None])
            average = kwargs.get("average_attn_weights", True)
            return output, (weights.mean(-3) if average else weights) if wanted else None
        return func(*args, **kwargs)


def softmax_weights(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The weights (B, N, T, S), float32, by which `F.scaled_dot_product_attention` with these arguments weighs."""
    query, key = query.float(), key.float()
    if enable_gqa:  # several heads of queries share one of keys
        key = key.repeat_interleave(query.size(-3) // key.size(-3), -3)
    scores = query @ key.transpose(-2, -1) * (query.size(-1) ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        return scores.masked_fill(~attn_mask, float("-inf")).softmax(-1).nan_to_num(0.0)
    return (scores if attn_mask is None else scores + attn_mask).softmax(-1)


@torch.no_grad()
def attention_weights(net: nn.Module, images: Tensor) -> list[Tensor]:
    """The weights (B, N, T, T) of each layer of self-attention, for images (B, C, H, W); in evaluation, on the CPU."""
    with untouched(net), AttentionWeights() as weights:
        net.eval()(images.to(next(net.parameters())))
    found = [each.float().cpu() for each in weights.found if each.ndim == 4 and each.size(-1) == each.size(-2)]
    return [each for each in found if len(each) == len(images)]


def rollout(weights: list[Tensor]) -> Tensor:
    """How much each token of the last layer holds of each token of the first, (B, T, T); rows sum to 1.

    The attention of a layer, averaged over heads, and the shortcut beside it count half each, and the layers are
    multiplied. Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers", section 3.1.

    Args:
        weights: L of (B, N, T, T), the first layer first.
    """
    result = torch.eye(weights[0].size(-1)).expand(len(weights[0]), -1, -1)
    for layer in weights:
        mean = layer.mean(1)
        result = 0.5 * (mean + torch.eye(mean.size(-1))) @ result
    return result


def as_maps(attention: Tensor, module: Any) -> Tensor:
    """Attention (B, T, T) -> maps (B, h, w) of how much is attended to each patch.

    Seen from the class token if there is one, that is if the first token is none of the patches; else from all tokens
    on average. Which token lies where is found by the `cam_reshape` of the net or module.

    Raises:
        ValueError: if that is missing, or does not take so many tokens.
    """
    reshape = getattr(module, "cam_reshape", None)
    if reshape is None:
        raise ValueError("it has no `cam_reshape` to tell where its tokens lie: expected a method; see `ViTNet`")
    tokens = attention.size(-1)
    try:
        place = reshape(torch.arange(tokens, dtype=torch.float32).view(1, tokens, 1))[0, 0].long()
    except RuntimeError as error:
        raise ValueError(f"`cam_reshape` does not take the {tokens} tokens of its attention: {error}") from None
    seen_from = attention.mean(1) if (place == 0).any() else attention[:, 0]
    return seen_from[:, place]


class AttentionMaps(ClassifierGallery):
    """Draws images next to their attention, to `pictures/attention_<split>.png`: the last layer, and the rollout.

    For any net whose attention torch computes (see `AttentionWeights`) and that has a `cam_reshape`, such as ViT and
    CCT; it is tried on one blank image before training starts, and if that fails, a line says why, and the training
    goes on without. Each map is stretched: from dark, its smallest value, to bright, its largest.

    Args:
        n: images to draw.
        order, every_n_epochs: see `Gallery`.

    Attributes:
        unavailable: why nothing can be drawn; None if it can.

    >>> AttentionMaps(5).order
    'first'
    """

    def __init__(self, n: int = 10, order: str = "first", every_n_epochs: int = 0) -> None:
        super().__init__(n, order, every_n_epochs)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._tried, self.unavailable = False, None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        shape = getattr(getattr(trainer, "datamodule", None), "image_shape", None)
        if shape is not None:
            self._try(pl_module, torch.zeros(shape))

    on_test_start = on_validation_start = on_fit_start

    def _try(self, pl_module: LightningModule, image: Tensor) -> None:
        if self._tried:
            return
        self._tried = True
        try:
            self.maps_of(pl_module, image[None])
        except Exception as error:  # of any kind: a gallery does not stop a training
            reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            self.unavailable = f"{type(pl_module).__name__}: {reason}"
            self.say_why()

    def _collect(self, trainer: Trainer, outputs: Any, batch: Any) -> None:
        self._try(trainer.lightning_module, batch[0][0])  # for data that do not know their `image_shape`
        if not self.unavailable:
            super()._collect(trainer, outputs, batch)

    @staticmethod
    def maps_of(pl_module: Any, images: Tensor) -> tuple[Tensor, Tensor, int]:
        """Maps (B, h, w) of the last layer, averaged over heads, and of the rollout, and L.

        Raises:
            ValueError: if the net has no attention that is seen, or its tokens cannot be laid out.
        """
        net = getattr(pl_module, "net", pl_module)
        weights = attention_weights(net, images)
        if not weights:
            raise ValueError(
                "torch computes no self-attention in it: expected a net that calls F.scaled_dot_product_attention or "
                "torch.nn.MultiheadAttention; leave AttentionMaps out"
            )
        tokens = weights[-1].size(-1)
        of_last = [layer for layer in weights if layer.size(-1) == tokens]
        source = net if hasattr(net, "cam_reshape") else pl_module
        return as_maps(weights[-1].mean(1), source), as_maps(rollout(of_last), source), len(of_last)

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        name, items = class_names(trainer), [entry.item for entry in self.shown]
        last, rolled, layers = self.maps_of(pl_module, torch.stack([item.image for item in items]))
        what = "first images" if self.order == "first" else "mistakes"
        title = f"Attention over {last.size(1)}x{last.size(2)} patches, {what} of the {self.split_name} set"
        figure, axes = cells(
            len(items), 3, title, f"The image; attention of the last layer; rollout through all {layers}"
        )
        rows = []
        for i, (panels, item) in enumerate(zip(axes, items, strict=True)):
            image = rgb(trainer, item.image)
            pictures = [image, *(over(image, maps[i]) for maps in (last, rolled))]
            for panel, picture in zip(panels, pictures, strict=True):
                draw_image(panel, picture)
            truth, prediction = name(item.truth), name(item.prediction)
            caption(panels[0], truth, prediction, f"{100 * item.confidence:.0f} % sure")
            rows.append([*pictures, truth, prediction, item.confidence])
        columns = ["image", "last layer", "rollout", "truth", "prediction", "confidence"]
        self.publish(trainer, f"attention_{self.split}", figure, (columns, rows))


def over(image: np.ndarray, attention: Tensor) -> np.ndarray:
    """An image (H, W, 3) in 0..1 with its attention (h, w) over it, stretched to 0..1; even attention is dark."""
    heat = F.interpolate(attention[None, None], image.shape[:2], mode="bilinear", align_corners=False)[0, 0]
    heat = (heat - heat.min()) / (heat.max() - heat.min()).clamp_min(1e-12)
    return (1 - ALPHA) * image + ALPHA * COLORMAP(heat.numpy())[..., :3]
