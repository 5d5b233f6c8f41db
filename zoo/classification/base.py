"""The base of all classifiers. B batch, C channels, H height, W width, K classes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from callbacks.figures.axis import loss_axis
from datamodules.batches import Labelled
from zoo.parts.losses import distillation
from zoo.parts.optim.schedules import OneCycle
from zoo.parts.pretrained import Renames, State, load_weights
from zoo.system import ScheduleCallable, System

# What torch says where an image, or what convolutions and pooling have left of it, is smaller than a filter.
TOO_SMALL = "Kernel size can't be greater than actual input size", "Output size is too small"
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)


class Classifier(System):
    """Trains any net that maps images (B, C, H, W) to logits (B, K) with cross-entropy.

    A system subclasses it in a few lines: it builds its net and passes the other arguments on. Labels are class
    indices (B,) int64 or, as mixed samples have them, the share of each class (B, K) float32, whose rows sum to 1.
    A net that returns several outputs in training, such as auxiliary logits, returns them as a tuple, logits first;
    its system overrides `loss`. Precision, devices and the length of the training belong to the Trainer.

    Args:
        net: plain module with the children `stem`, then `stages` or `blocks`, then `head`, and whatever further ones
            its class names in `extras`. It may say where class activation maps are computed, by `cam_target`, a
            module in it, and `cam_reshape`, a method that turns the output of that into maps (B, D, H, W).
        num_classes: K.
        optimizer, schedule: see `System`.
        label_smoothing: share of the target that is spread over all classes in training, 0 to 1 (Szegedy et al. 2016,
            section 7).
        flip_tta: in evaluation, average the logits of the image and its mirror image.
        shift_tta: in evaluation, average also over the image shifted by so many pixels up, down, left and right; the
            border is repeated. After Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds", section 3.5.
        tta_below: only the images whose class is less probable than this, seen once, get these further views; 1 gives
            them to all.
        teacher: a trained classifier whose logits this one learns, for each image as it is after augmentation: the name
            of a ready model, the folder of a run or a checkpoint. Only training needs it.
        temperature: how far the logits of both are softened; see `zoo.parts.losses.distillation`.
        teacher_share: share of the teacher in the loss; the rest is the labels'.

    Raises:
        ValueError: see `System`. Or if the teacher has other classes, or takes images of other channels or another
            normalization; or if the images are too small for the net.
    """

    axes = System.axes | {"loss": loss_axis("cross-entropy in nats")}

    def __init__(
        self,
        net: nn.Module,
        num_classes: int,
        optimizer: OptimizerCallable = SGD,
        schedule: ScheduleCallable = OneCycle,
        label_smoothing: float = 0.0,
        flip_tta: bool = False,
        shift_tta: int = 0,
        tta_below: float = 1.0,
        teacher: str | None = None,
        temperature: float = 4.0,
        teacher_share: float = 1.0,
    ) -> None:
        super().__init__(optimizer, schedule)
        if not temperature > 0 or not 0 <= teacher_share <= 1:
            raise ValueError(
                f"temperature is {temperature:g} and teacher_share {teacher_share:g}: expected a temperature above 0, "
                "and a share from 0 to 1"
            )
        self.save_hyperparameters(ignore=["net", "optimizer", "schedule"])
        self.net = net.to(memory_format=torch.channels_last)  # up to 1.4 times faster on CPUs, more on tensor cores
        self.num_classes, self.label_smoothing = num_classes, label_smoothing
        self.flip_tta, self.shift_tta, self.tta_below = flip_tta, shift_tta, tta_below
        self.teacher, self.temperature, self.teacher_share = teacher, temperature, teacher_share
        self._teachers: list[nn.Module] = []  # in a list: neither its weights nor its metrics are this module's own
        for name in ("loss", "acc"):
            self.add_metric(name)

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit" and self.teacher is not None:
            self._teachers = [self._load_teacher(self.teacher)]

    def _load_teacher(self, source: str) -> "Classifier":
        import zoo  # its `load` imports what it needs, among it the systems, only when it is called

        teacher, data = zoo.load(source), getattr(self.trainer, "datamodule", None)
        if not isinstance(teacher, Classifier):
            raise ValueError(f"teacher is {source}, a {type(teacher).__name__}: expected a classifier")
        pairs: dict[str, tuple[Any, Any]] = {"num_classes": ([teacher.num_classes], [self.num_classes])}
        for name, owner in (("classes", teacher), ("mean", teacher.preprocess), ("std", teacher.preprocess)):
            pairs[name] = getattr(owner, name, None), getattr(data, name, None)
        for name, (theirs, ours) in pairs.items():
            if theirs is not None and ours is not None and list(theirs) != list(ours):
                raise ValueError(
                    f"{name} of the teacher {source}: {list(theirs)}, and here {list(ours)}: expected the same, as "
                    "both get the same batches; take a teacher that was trained on such data"
                )
        return teacher.requires_grad_(False)

    @property
    def backbone(self) -> nn.Module:
        """All layers of the net but its head: what Lightning's `BackboneFinetuning` freezes at first."""
        return nn.ModuleList(child for name, child in self.net.named_children() if name != "head")

    def load_weights(
        self,
        weights: str | None,
        model: str,
        renames: Renames,
        convert: Callable[[State], State] | None = None,
    ) -> None:
        """Starts from weights of a torchvision model; see `load_weights`. None leaves the net as it is."""
        if weights is not None:
            load_weights(self.net, weights, model, renames, convert)
            self.is_initialized = True

    def forward(self, image: Tensor) -> Any:
        """(B, C, H, W) -> in training what the net returns; in evaluation logits (B, K), averaged over the views."""
        if self.training or not (self.flip_tta or self.shift_tta):
            return self.net(image)
        if self.tta_below >= 1:
            return self._mean_over_views(image)
        logits = self.net(image)
        unsure = logits.float().softmax(1).amax(1) < self.tta_below
        if unsure.any():
            logits[unsure] = self._mean_over_views(image[unsure], logits[unsure])
        return logits

    def _mean_over_views(self, image: Tensor, first: Tensor | None = None) -> Tensor:
        """The logits, averaged over the image and its further views; `first` are those of the image, if known."""
        views = [image, *shifted(image, self.shift_tta)]
        views += [view.flip(-1) for view in views if self.flip_tta]
        logits = [self.net(image) if first is None else first, *(self.net(view) for view in views[1:])]
        return sum(logits) / len(views)

    def loss(self, outputs: Any, label: Tensor, split: str) -> Tensor:
        """The loss of a batch: a hook for systems with further outputs or other losses.

        Args:
            outputs: what `forward` returned.
            label: (B,) int64, or (B, K) float32.
            split: "train", "val" or "test".

        Returns:
            Scalar.
        """
        return self.cross_entropy(logits_of(outputs), label, split)

    def cross_entropy(self, logits: Tensor, label: Tensor, split: str) -> Tensor:
        """Mean over the batch, in float32 whatever the precision; labels are smoothed in training only."""
        smoothing = self.label_smoothing if split == "train" else 0.0
        return F.cross_entropy(logits.float(), label, label_smoothing=smoothing)

    def step(self, batch: Labelled, split: str) -> dict[str, Tensor]:
        image, label = batch
        outputs = self._outputs(image)
        loss, logits = self.loss(outputs, label, split), logits_of(outputs).detach().float()
        if split == "train" and self._teachers:
            loss = (1 - self.teacher_share) * loss + self.teacher_share * self._from_teacher(image, outputs)
        self.log_metric(f"{split}/loss", loss.detach().expand(len(label)))  # one entry a sample: weighs batches
        self.log_metric(f"{split}/acc", share_right(logits, label))
        return {"loss": loss, "logits": logits}

    def _outputs(self, image: Tensor) -> Any:
        try:
            return self(image)
        except RuntimeError as error:
            if not any(text in str(error) for text in TOO_SMALL):
                raise
            raise ValueError(
                f"the images are {image.size(-1)} x {image.size(-2)} pixels, of which too few are left for the last "
                f"layers of {type(self.net).__name__}: expected larger images; resize them (image_size of your own "
                "pictures), or take a net that shrinks them less"
            ) from error

    def _from_teacher(self, image: Tensor, outputs: Any) -> Tensor:
        teacher = self._teachers[0].to(image.device, image.dtype)
        with torch.no_grad():
            taught = teacher(image)
        return distillation(logits_of(outputs), taught, self.temperature)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["hyper_parameters"].pop("weights", None)  # the checkpoint has better ones, and needs no file

    def predict_step(self, batch: Labelled, batch_idx: int) -> Tensor:
        return self(batch[0])


def logits_of(outputs: Any) -> Tensor:
    """The logits (B, K) among what a net returned: all of it, or the first of several outputs."""
    return outputs if isinstance(outputs, Tensor) else outputs[0]


def share_right(logits: Tensor, label: Tensor) -> Tensor:
    """How right each prediction is: 1 or 0, or of mixed labels the share of the predicted class.

    Shape: (B, K) and (B,) int64 or (B, K) float32 -> (B,) float32.

    >>> share_right(torch.tensor([[2.0, 1.0], [2.0, 1.0]]), torch.tensor([[0.7, 0.3], [0.0, 1.0]]))
    tensor([0.7000, 0.0000])
    """
    predicted = logits.argmax(1)
    if label.ndim == 1:
        return (predicted == label).float()
    return label.gather(1, predicted[:, None])[:, 0].float()


def shifted(image: Tensor, pixels: int) -> list[Tensor]:
    """(B, C, H, W) shifted by `pixels` down, up, right and left, the border repeated; nothing for 0 pixels."""
    if not pixels:
        return []
    height, width = image.shape[-2:]
    wide = F.pad(image, (pixels,) * 4, mode="replicate")
    corners = ((0, pixels), (2 * pixels, pixels), (pixels, 0), (pixels, 2 * pixels))
    return [wide[..., top : top + height, left : left + width] for top, left in corners]
