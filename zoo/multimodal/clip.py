"""CLIP: embeds images and sentences in one space, where matching ones are close. It finds images by words, and
classifies them into classes that are only named.

B batch, T tokens, D dimension of the space, N images, S sentences, P phrasings, K classes.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", sections 2.3 to 2.5 and
figure 3, at a size that a CPU trains in a minute or two.
"""

import math
from functools import partial
from itertools import chain, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from callbacks.figures.axis import loss_axis, percent_axis
from datamodules.batches import Paired
from zoo.parts.attention import Block
from zoo.parts.convs import conv_norm_act
from zoo.parts.optim.muon import Muon
from zoo.parts.optim.schedules import OneCycle
from zoo.system import ScheduleCallable, System

MUON = partial(Muon, lr=0.02, adam_lr=0.003)
INITIAL_SCALE, MAX_SCALE = 1 / 0.07, 100.0  # of the similarities, one divided by the temperature; section 2.5
RANKED = 256  # images that are embedded at a time when they are ranked


def contrastive_loss(logits: Tensor, label: Tensor | None = None) -> Tensor:
    """Symmetric cross-entropy of a square of similarities (figure 3): of images over sentences, and the reverse.

    Differs from the paper in the treatment of pairs with the same meaning. There every other sentence of the batch is
    wrong; with few possible sentences that would penalize right answers. Here the target is distributed evenly over all
    columns of the same label, as in Yang et al. 2022, "Unified Contrastive Learning", and the entropy of that target is
    subtracted, so that 0 is perfect. If all labels differ, it is the paper's loss.

    Args:
        logits: (B, B), images in rows, their sentences in the same order in columns.
        label: (B,); equal if pairs have the same meaning. None: all differ.

    Returns:
        Scalar in nats, float32.

    >>> float(contrastive_loss(torch.zeros(4, 4)))  # chance level of four
    1.3862943649291992
    """
    label = torch.arange(len(logits), device=logits.device) if label is None else label
    same = (label[:, None] == label).float()
    target, logits = same / same.sum(1, keepdim=True), logits.float()
    by_image, by_sentence = (
        F.kl_div(scores.log_softmax(1), target, reduction="batchmean") for scores in (logits, logits.T)
    )
    return (by_image + by_sentence) / 2


class ImageEncoder(nn.Module):
    """Convolutions at strides 1, 2, 2 ..., global max-pooling, projection.

    The maximum, because an object that a sentence names may fill a small part of the image.

    Args:
        dim: D.
        in_channels: C.
        widths: channels of the stem and of the stages.

    Shape: (B, C, H, W) -> (B, D).
    """

    def __init__(self, dim: int, in_channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = conv_norm_act(in_channels, widths[0])
        self.stages = nn.Sequential(*(conv_norm_act(narrow, wide, stride=2) for narrow, wide in pairwise(widths)))
        self.head = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(widths[-1], dim, bias=False))

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(image)))


class TextEncoder(nn.Module):
    """A transformer, and the mean of its outputs over the tokens.

    Differs from the paper (section 2.4) in attention to both sides and in the mean, where the paper reads a causal
    transformer at the last token; in residual branches whose last layer starts at zero (Zhang et al. 2019, "Fixup
    Initialization", section 3), so that it starts as a bag of words and learns the effect of the order: both help with
    phrasings that were not trained. Also in rotary positions, which do not limit the length of a sentence.

    Args:
        dim: D.
        vocab_size: number of tokens.
        width, depth, num_heads: of the transformer.

    Shape: (S, T) int64 and mask (S, T), false at padding -> (S, D).
    """

    def __init__(self, dim: int, vocab_size: int, width: int, depth: int, num_heads: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab_size, width)
        blocks = [Block(width, num_heads, rotary=True) for _ in range(depth)]
        for block in blocks:
            for parameter in chain.from_iterable(layer.parameters() for layer in block.last_layers()):
                nn.init.zeros_(parameter)
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim, bias=False))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.embed(input_ids)
        for block in self.blocks:
            x = block(x, attention_mask)
        share = attention_mask / attention_mask.sum(1, keepdim=True)
        return self.head((share[..., None] * x).sum(1))


class CLIPNet(nn.Module):
    """Two encoders into one space, and the scale (the inverse temperature) of their similarities.

    Args:
        the same as of `CLIP`.
    """

    def __init__(
        self,
        vocab_size: int,
        dim: int,
        in_channels: int,
        widths: tuple[int, ...],
        text_width: int,
        text_depth: int,
        text_heads: int,
    ) -> None:
        super().__init__()
        self.image = ImageEncoder(dim, in_channels, widths).to(memory_format=torch.channels_last)
        self.text = TextEncoder(dim, vocab_size, text_width, text_depth, text_heads)
        self.log_scale = nn.Parameter(torch.tensor(math.log(INITIAL_SCALE)))

    @property
    def cam_target(self) -> nn.Module:
        return self.image.stages[-1]

    def encode_image(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D) of length 1, float32."""
        return F.normalize(self.image(image).float(), dim=-1)

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(S, T) and (S, T) -> (S, D) of length 1, float32."""
        return F.normalize(self.text(input_ids, attention_mask).float(), dim=-1)

    def similarity(self, image: Tensor, text: Tensor) -> Tensor:
        """Embeddings (B, D), (S, D) -> cosines times scale (B, S), float32 also under autocast: the scale is large."""
        with torch.autocast(image.device.type, enabled=False):
            return self.log_scale.exp() * image @ text.T

    def forward(self, image: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Images (B, C, H, W), sentences (S, T) -> their similarities (B, S)."""
        return self.similarity(self.encode_image(image), self.encode_text(input_ids, attention_mask))


class Recall(Metric):
    """Share of sentences with a right image among the `k` most similar of all evaluated images, of all ranks."""

    image: list[Tensor]
    text: list[Tensor]
    label: list[Tensor]

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k
        for name in ("image", "text", "label"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, image: Tensor, text: Tensor, label: Tensor) -> None:
        """Embeddings (B, D) and (B, D), labels (B,)."""
        for state, value in ((self.image, image), (self.text, text), (self.label, label)):
            state.append(value)

    def compute(self) -> Tensor:
        image, text, label = (dim_zero_cat(state) for state in (self.image, self.text, self.label))
        k = min(self.k, len(image))
        best = torch.cat([(part @ image.T).topk(k).indices for part in text.split(1000)])  # to bound the memory
        return (label[best] == label[:, None]).any(1).float().mean()


class CLIP(System):
    """Trains the encoders so that in a batch each image is closest to its sentence, and each sentence to its image.

    With several devices the batch is the global one. Evaluation logs for each split:
    `acc`, zero-shot accuracy (section 3.1), if the datamodule has `prompts(split)`, tokens and mask, each (P, K, T):
    for each image and each phrasing, whether the right one of the K sentences of that phrasing is the most similar;
    `acc_new`, the same for the classes that were not trained, the datamodule's `new_classes`;
    `recall_1`, `recall_5`: share of sentences with a right image among the 1 or 5 most similar of all images;
    `loss`, which depends on the size of the batch: a larger one has more alternatives.

    Args:
        vocab_size: number of tokens.
        dim: D.
        in_channels, widths: of the image encoder.
        text_width, text_depth, text_heads: of the text encoder.
        share_targets: pairs of equal label have the same meaning, see `contrastive_loss`; else all pairs differ.
        optimizer, schedule: see `System`.

    Raises:
        ValueError: see `System`.
    """

    axes = System.axes | {
        "loss": loss_axis("contrastive cross-entropy in nats"),
        "acc": percent_axis("Zero-shot accuracy"),
        "acc_new": percent_axis("Zero-shot, new classes"),
        "recall_1": percent_axis("Recall at 1", "recall"),
        "recall_5": percent_axis("Recall at 5", "recall"),
    }

    net: CLIPNet

    def __init__(
        self,
        vocab_size: int,
        dim: int = 64,
        in_channels: int = 3,
        widths: tuple[int, ...] = (16, 32, 64, 96, 128),
        text_width: int = 64,
        text_depth: int = 2,
        text_heads: int = 4,
        share_targets: bool = True,
        optimizer: OptimizerCallable = MUON,
        schedule: ScheduleCallable = OneCycle,
    ) -> None:
        super().__init__(optimizer, schedule)
        self.save_hyperparameters(ignore=["optimizer", "schedule"])
        self.net = CLIPNet(
            vocab_size=vocab_size,
            dim=dim,
            in_channels=in_channels,
            widths=widths,
            text_width=text_width,
            text_depth=text_depth,
            text_heads=text_heads,
        )
        self.vocab_size, self.share_targets = vocab_size, share_targets
        self._class_embeddings: dict[str, tuple[Tensor, torch.Size]] = {}
        self.add_metric("loss")
        for name in ("acc", "acc_new"):
            self.add_metric(name, splits=("val", "test"))
        for k in (1, 5):
            self.add_metric(f"recall_{k}", partial(Recall, k), splits=("val", "test"))

    def forward(self, image: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Images (B, C, H, W), sentences (S, T) -> similarities (B, S)."""
        return self.net(image, input_ids, attention_mask)

    def rank(self, image: Tensor, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Ranks images (N, C, H, W) by their similarity to each of S sentences.

        Returns:
            Indices of the images, most similar first, (S, N) int64, and their cosines with the sentence (S, N).
        """
        with torch.inference_mode():
            images = torch.cat([self.net.encode_image(some) for some in image.split(RANKED)])
            cosine = self.net.encode_text(input_ids, attention_mask) @ images.T
        best = cosine.sort(dim=1, descending=True, stable=True)
        return best.indices, best.values

    def step(self, batch: Paired, split: str) -> dict[str, Tensor]:
        image, text = self.net.encode_image(batch.image), self.net.encode_text(batch.input_ids, batch.attention_mask)
        label = batch.label
        if split == "train":
            # Each rank computes the loss of the global batch. The gradients of the gathered tensors are summed over
            # the ranks, DDP averages those of the parameters: together they are the gradient of the global loss.
            embeddings: Any = self.all_gather((image, text), sync_grads=True)
            image, text = (x.flatten(0, -2) for x in embeddings)
            labels: Any = self.all_gather(label)
            label = labels.flatten()
        else:
            for k in (1, 5):
                self.log_metric(f"{split}/recall_{k}", image, text, label, prog_bar=k == 1)
            self._zero_shot(image, label, split)
        logits = self.net.similarity(image, text)
        loss = contrastive_loss(logits, label if self.share_targets else None)
        self.log_metric(f"{split}/loss", loss.detach(), len(label))
        return {
            "loss": loss,
            "logits": logits.detach(),
            "image_embedding": image.detach(),
            "text_embedding": text.detach(),
        }

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        with torch.no_grad():
            self.net.log_scale.clamp_(max=math.log(MAX_SCALE))

    def on_validation_epoch_start(self) -> None:
        self._class_embeddings = {}  # split -> embeddings (P * K, D) of the sentences of all classes, and (P, K)

    on_test_epoch_start = on_validation_epoch_start

    def predict_step(self, batch: Paired, batch_idx: int) -> Tensor:
        return self.net.encode_image(batch.image)

    def _zero_shot(self, image: Tensor, label: Tensor, split: str) -> None:
        data: Any = getattr(self.trainer, "datamodule", None)
        if not hasattr(data, "prompts"):
            return
        if split not in self._class_embeddings:
            input_ids, mask = self.transfer_batch_to_device(data.prompts(split), self.device, 0)
            text = self.net.encode_text(input_ids.flatten(0, 1), mask.flatten(0, 1))
            self._class_embeddings[split] = text, input_ids.shape[:2]
        text, shape = self._class_embeddings[split]
        nearest = self.net.similarity(image, text).unflatten(1, shape).argmax(-1)
        right = (nearest == label[:, None]).float()
        self.log_metric(f"{split}/acc", right)
        if new := getattr(data, "new_classes", ()):
            self.log_metric(f"{split}/acc_new", right[torch.isin(label, label.new_tensor(new))], prog_bar=False)
