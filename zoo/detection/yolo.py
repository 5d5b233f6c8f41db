"""YOLOv2: in one pass of one net, each cell of a grid predicts a box and a class for every anchor. Use it to find and
count objects of a few kinds, fast.

Redmon and Farhadi 2017, "YOLO9000: Better, Faster, Stronger", section 2; the loss is that of Redmon et al. 2016,
"You Only Look Once", equation 3, as the Extensive Vision AI course teaches it.

B batch, C channels, H height, W width, K classes; R rows and S columns of the grid, A anchors, P = A * R * S
predictors, M objects that are assigned to a predictor. Boxes are xyxy in pixels of the net's input.
"""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.detection import MeanAveragePrecision
from torchvision.ops import box_area, box_iou, complete_box_iou_loss

from callbacks.figures.axis import Axis, loss_axis, percent_axis
from datamodules.batches import Boxed
from zoo.detection.base import Detector
from zoo.parts.convs import conv_norm_act

INITIAL_OBJECTNESS_LOGIT = -4.0  # a probability of 2 %: almost all predictors see no object
VOC_ANCHORS = [[0.10, 0.13], [0.25, 0.31], [0.39, 0.62], [0.73, 0.37], [0.86, 0.77]]  # of Darknet's YOLOv2 on VOC
MANY_CLASSES = 12  # more have no curve each
MAX_LOG_SCALE = 4.0  # of log(box side / anchor side); exp() of more might overflow


class OfClass(NamedTuple):
    """The average precision of one class: at an IoU of 0.5, and the mean over IoUs of 0.5 to 0.95."""

    ap_50: float
    ap_50_95: float


class AveragePrecision(MeanAveragePrecision):
    """Mean average precision at an IoU of 0.5, a scalar; -1 if there are no objects.

    Attributes:
        map_50_95: the mean over IoUs of 0.5 to 0.95 in steps of 0.05, as COCO defines it; once computed.
        of_class: label -> average precision, of the classes of which there are objects; once computed.
    """

    def __init__(self) -> None:
        super().__init__(backend="faster_coco_eval", extended_summary=True)
        self.warn_on_many_detections = False
        self.map_50_95, self.of_class = -1.0, dict[int, OfClass]()

    def compute(self) -> Tensor:  # type: ignore[override]
        found: dict[str, Any] = super().compute()
        self.map_50_95, self.of_class = float(found["map"]), {}
        # Without any object or any detection there is no such table.
        table = found.get("precision", torch.empty(1, 1, 0, 1, 1))[:, :, :, 0, -1]  # (T, R, K), of boxes of all sizes
        for place in range(table.shape[2]):
            values = table[:, :, place]
            if (values > -1).any():  # else there are detections of this class but no objects
                self.of_class[int(found["classes"][place])] = OfClass(float(values[0].mean()), float(values.mean()))
        return found["map_50"]


class Predictions(NamedTuple):
    """The decoded output of the net.

    xy: (B, P, 2) centers within their cells, 0..1.
    wh: (B, P, 2) sizes as fractions of the image.
    boxes: (B, P, 4).
    objectness: (B, P) in 0..1.
    logits: (B, P, K) of the classes.
    """

    xy: Tensor
    wh: Tensor
    boxes: Tensor
    objectness: Tensor
    logits: Tensor


class Targets(NamedTuple):
    """The targets of the responsible predictors: `xy`, `wh`, `boxes` as in `Predictions` but (M, ...), labels (M,).

    image, predictor: (M,) indices of the responsible ones among the (B, P).
    """

    image: Tensor
    predictor: Tensor
    xy: Tensor
    wh: Tensor
    boxes: Tensor
    labels: Tensor


def _numbers(values: tuple[float, ...], like: Tensor) -> Tensor:
    """A tensor of these, written by the device itself: it would have to wait for numbers that come from the host."""
    return torch.cat([like.new_full((1,), value) for value in values])


def decode(raw: Tensor, anchors: Tensor, size: tuple[int, int]) -> Predictions:
    """Decodes the net's output (B, A * (5 + K), R, S), for anchors (A, 2) and images of `size` (H, W).

    Section 2, figure 3. Each anchor has the channels x, y, width, height, objectness and K classes, in this order.
    """
    rows, columns = raw.shape[2:]
    raw = raw.float().unflatten(1, (len(anchors), -1)).permute(0, 1, 3, 4, 2)  # (B, A, R, S, 5 + K)
    y, x = torch.meshgrid(*(torch.arange(n, device=raw.device) for n in (rows, columns)), indexing="ij")
    xy = raw[..., :2].sigmoid()
    wh = anchors[:, None, None] * raw[..., 2:4].clamp(max=MAX_LOG_SCALE).exp()
    center = (torch.stack([x, y], -1) + xy) / _numbers((columns, rows), raw)
    boxes = torch.cat([center - wh / 2, center + wh / 2], -1) * _numbers((*size[::-1],) * 2, raw)
    fields = xy, wh, boxes, raw[..., 4].sigmoid(), raw[..., 5:]
    return Predictions(*(field.flatten(1, 3) for field in fields))


def assign(
    boxes: list[Tensor], labels: list[Tensor], anchors: Tensor, grid: tuple[int, int], size: tuple[int, int]
) -> Targets:
    """Assigns each object to the cell of its center, and there to the anchor with the largest IoU of shapes.

    If two objects have the same predictor, the one with the larger IoU gets it, of equals the first; the other is not
    assigned. Boxes without area are ignored.

    Args:
        boxes, labels: of each image, as in `Boxed`.
        anchors: (A, 2) fractions of the image.
        grid: (R, S).
        size: (H, W) of the images.
    """
    (rows, columns), (H, W) = grid, size
    image = torch.cat([torch.full_like(of_image, i) for i, of_image in enumerate(labels)])
    box, label = torch.cat(boxes).float(), torch.cat(labels)
    wh = (box[:, 2:] - box[:, :2]) / _numbers((W, H), box)
    center = (box[:, :2] + box[:, 2:]) / 2 * _numbers((columns / W, rows / H), box)  # in cells
    column, row = (center[:, i].long().clamp(0, n - 1) for i, n in enumerate((columns, rows)))
    common = torch.minimum(wh[:, None], anchors).prod(2)
    iou, anchor = (common / (wh.prod(1)[:, None] + anchors.prod(1) - common)).max(1)
    predictor = (anchor * rows + row) * columns + column

    per_image = len(anchors) * rows * columns
    key = torch.where((wh > 0).all(1), image * per_image + predictor, len(boxes) * per_image)  # without area: the last
    order = iou.argsort(descending=True, stable=True)  # of the objects of one predictor the first is kept
    key, by_key = key[order].sort(stable=True)
    is_first = torch.cat([key[:1] >= 0, key[1:] != key[:-1]])
    # The only place in a training step where the host waits for the device: it must know how many objects there are.
    kept = order[by_key[is_first & (key < len(boxes) * per_image)]].sort().values
    xy = center - torch.stack([column, row], 1)
    return Targets(*(values[kept] for values in (image, predictor, xy, wh, box, label)))


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes (M, 4) and (M, 4), pair by pair: (M,)."""
    common = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(0).prod(1)
    return common / (box_area(a) + box_area(b) - common).clamp_min(1e-9)


class YOLOLoss(nn.Module):
    """Sum of squared errors over all predictors, and cross-entropy for the class; divided by the number of images.

    Differs from equation 3 in: classes by cross-entropy, as in the course; and, as in Darknet's YOLOv2, the objectness
    of a predictor that is not responsible costs nothing if its box has an IoU above `ignore` with some object.

    Args:
        box: "squared", of the center within its cell and of the square roots of width and height as fractions of the
            image; or "ciou", one minus the complete IoU (Zheng et al. 2020).
        coord, no_object: weights of the boxes and of the predictors without object, lambda in equation 3.
        ignore: see above.
    """

    def __init__(self, box: str = "squared", coord: float = 5.0, no_object: float = 0.5, ignore: float = 0.6) -> None:
        super().__init__()
        if box not in ("squared", "ciou"):
            raise ValueError(f"box_loss is {box!r}: expected 'squared' or 'ciou'")
        self.box, self.coord, self.no_object, self.ignore = box, coord, no_object, ignore

    def forward(self, predictions: Predictions, targets: Targets, boxes: list[Tensor]) -> dict[str, Tensor]:
        """The terms, weighted, and their sum as "loss"; all are scalars. `boxes` are those of all objects."""
        xy, wh, box, objectness, logits = (field[targets.image, targets.predictor] for field in predictions)
        if self.box == "ciou":
            error = complete_box_iou_loss(box, targets.boxes)
        else:
            error = ((xy - targets.xy) ** 2).sum(1) + ((wh.sqrt() - targets.wh.sqrt()) ** 2).sum(1)
        with torch.no_grad():
            iou = paired_iou(box, targets.boxes)
            best = [
                box_iou(predicted, true.float()).amax(1) if len(true) else predicted.new_zeros(len(predicted))
                for predicted, true in zip(predictions.boxes, boxes, strict=True)
            ]
            background = torch.stack(best) <= self.ignore
            background[targets.image, targets.predictor] = False
        terms = {
            "box": self.coord * error.sum(),
            "object": ((objectness - iou) ** 2).sum(),
            "no_object": self.no_object * (predictions.objectness**2 * background).sum(),
            "class": F.cross_entropy(logits, targets.labels, reduction="sum"),
        }
        terms = {name: term / len(boxes) for name, term in terms.items()}
        return {"loss": torch.stack([*terms.values()]).sum(), **terms}


class Residual(nn.Module):
    """A residual block of two 3x3 convolutions (He et al. 2015)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(conv_norm_act(channels, channels), conv_norm_act(channels, channels, act=False))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.branch(x))


class Head(nn.Module):
    """The passthrough layer and the predicting 1x1 convolution.

    The finer map is reduced in channels, each 2x2 of its pixels become one with four times the channels, and the two
    maps are concatenated (section 2, "Fine-Grained Features").

    Shape: (B, fine, 2R, 2S) and (B, coarse, R, S) -> (B, outputs, R, S).
    """

    def __init__(self, fine: int, coarse: int, passthrough: int, outputs: int) -> None:
        super().__init__()
        self.passthrough = nn.Sequential(conv_norm_act(fine, passthrough, 1), nn.PixelUnshuffle(2))
        self.mix = conv_norm_act(4 * passthrough + coarse, coarse)
        self.predict = nn.Conv2d(coarse, outputs, 1)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        return self.predict(self.mix(torch.cat([self.passthrough(fine), coarse], 1)))


class YOLONet(nn.Module):
    """A small residual net whose stem and stages each halve the maps, with the head on the last two maps.

    Args:
        outputs: A * (5 + K).
        in_channels: C.
        widths: channels of the stem and of the stages, of which there are two or more.
        depth: residual blocks in each stage.
        passthrough: channels of the finer map in the head.

    Shape: (B, C, H, W) -> (B, outputs, H / stride, W / stride), where the stride is 2 to the number of widths.

    Raises:
        ValueError: if H or W is not a multiple of the stride.
    """

    def __init__(
        self,
        outputs: int,
        in_channels: int = 3,
        widths: tuple[int, ...] = (24, 32, 64, 128),
        depth: int = 2,
        passthrough: int = 16,
    ) -> None:
        super().__init__()
        self.stride = 2 ** len(widths)
        self.stem = conv_norm_act(in_channels, widths[0], stride=2)
        self.stages = nn.Sequential()
        for inputs, width in pairwise(widths):
            blocks = (Residual(width) for _ in range(depth))
            self.stages.append(nn.Sequential(conv_norm_act(inputs, width, stride=2), *blocks))
        self.head = Head(fine=widths[-2], coarse=widths[-1], passthrough=passthrough, outputs=outputs)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2] % self.stride or x.shape[-1] % self.stride:
            raise ValueError(
                f"the images are {x.shape[-1]} x {x.shape[-2]} pixels: expected multiples of {self.stride}, "
                "the stride of the net; choose another image size"
            )
        fine = self.stages[:-1](self.stem(x))
        return self.head(fine, self.stages[-1](fine))


def read_anchors(anchors: list[list[float]] | str, num_anchors: int | None = None) -> list[list[float]]:
    """Checks anchors, pairs [width, height] in fractions of the image; reads them first if their file is given.

    Raises:
        ValueError: if they are anything else, or the file has none for `num_anchors`.
        FileNotFoundError: if the file does not exist.
    """
    if isinstance(anchors, str):
        path = Path(anchors)
        try:
            table = json.loads(path.read_text())["anchors"]
            anchors, known = table.get(str(num_anchors)), [*table]
        except FileNotFoundError:
            raise FileNotFoundError(f"{path} does not exist: expected an anchors.json; run `zoo anchors`") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(f"{path} contains no anchors: expected what `zoo anchors` writes; run it again") from None
        if anchors is None:
            raise ValueError(f"num_anchors is {num_anchors}: expected one of {', '.join(known)}, as in {path}")
    pairs = [tuple(pair) if isinstance(pair, (list, tuple)) else () for pair in anchors]
    if not pairs or not all(len(pair) == 2 and all(0 < side <= 1 for side in pair) for pair in pairs):
        raise ValueError(
            f"anchors are {anchors}: expected pairs [width, height] in fractions of the image, above 0 and up to 1; "
            "`zoo anchors` finds them"
        )
    return [list(map(float, pair)) for pair in pairs]


def default_anchors(count: int | None) -> list[list[float]]:
    """Anchors to begin with where none are given: those of VOC, or so many of them.

    Raises:
        ValueError: for a count below 1.
    """
    if count is not None and count < 1:
        raise ValueError(f"num_anchors is {count}: expected 1 or more")
    return [VOC_ANCHORS[i % len(VOC_ANCHORS)] for i in range(count or len(VOC_ANCHORS))]


def axes_of(loss: YOLOLoss) -> dict[str, Axis]:
    """How the loss and its terms are plotted. The terms are sums over predictors, divided by the number of images."""
    box = {"squared": "squared errors of the box", "ciou": "1 - complete IoU of the box"}[loss.box]
    return {
        "loss": loss_axis("sum of the four terms"),
        "map_50_95": percent_axis("Mean average precision 50-95", "mAP at IoU 0.5 to 0.95"),
        "box": loss_axis(f"{loss.coord:g} x ({box}), summed", "Loss of boxes")._replace(part_of="loss"),
        "class": loss_axis("cross-entropy in nats, summed", "Loss of classes")._replace(part_of="loss"),
        # Of these two one may well grow, where the other falls.
        "object": Axis("Loss of objects", "squared error of objectness, summed", "{:.3f}", part_of="loss"),
        "no_object": Axis(
            "Loss where there is no object",
            f"{loss.no_object:g} x squared objectness, summed",
            "{:.3f}",
            part_of="loss",
        ),
    }


class YOLO(Detector):
    """Trains a `YOLONet`; the other arguments are `Detector`'s.

    Args:
        num_classes: K.
        anchors, num_anchors: pairs [width, height] in fractions of the image; or the path of the `anchors.json` that
            `zoo anchors` wrote, and which of its numbers of anchors to take; or None for so many, by default 5, that
            are found for the boxes of the training data.
        in_channels, widths, depth, passthrough: see `YOLONet`.
        box_loss, coord, no_object, ignore: see `YOLOLoss`.

    Raises:
        ValueError, FileNotFoundError: see `read_anchors`.

    >>> model = YOLO(num_classes=3, anchors=[[0.2, 0.2], [0.5, 0.4]])
    >>> model.net(torch.zeros(1, 3, 240, 320)).shape
    torch.Size([1, 16, 15, 20])
    """

    net: YOLONet
    anchors: Tensor

    def __init__(
        self,
        num_classes: int = 20,
        anchors: list[list[float]] | str | None = None,
        num_anchors: int | None = None,
        in_channels: int = 3,
        widths: tuple[int, ...] = (24, 32, 64, 128),
        depth: int = 2,
        passthrough: int = 16,
        box_loss: str = "squared",
        coord: float = 5.0,
        no_object: float = 0.5,
        ignore: float = 0.6,
        **task_options: Any,
    ) -> None:
        self.finds_anchors = anchors is None
        pairs = default_anchors(num_anchors) if anchors is None else read_anchors(anchors, num_anchors)
        outputs = len(pairs) * (5 + num_classes)
        net = YOLONet(outputs, in_channels=in_channels, widths=widths, depth=depth, passthrough=passthrough)
        with torch.no_grad():
            _, bias = net.head.predict.parameters()
            bias.view(len(pairs), -1)[:, 4] = INITIAL_OBJECTNESS_LOGIT
        super().__init__(net, num_classes, **task_options)
        self.register_buffer("anchors", torch.empty(len(pairs), 2))
        self._set_anchors(pairs)
        self.loss = YOLOLoss(box_loss, coord=coord, no_object=no_object, ignore=ignore)
        for split in ("val", "test"):
            self.metrics[f"{split}/map_50"] = AveragePrecision()
        self.axes = self.axes | axes_of(self.loss)  # type: ignore[misc]

    def _set_anchors(self, pairs: list[list[float]]) -> None:
        self.anchors.copy_(torch.tensor(pairs))
        self.hparams.update(anchors=pairs, num_anchors=None)  # a checkpoint needs no other file

    def setup(self, stage: str) -> None:
        """Finds the anchors, if there are none, and names the classes."""
        super().setup(stage)
        data: Any = getattr(self.trainer, "datamodule", None)
        if self.finds_anchors and "train" in getattr(data, "datasets", {}):
            self._set_anchors(data.anchors(len(self.anchors)))
            self.finds_anchors = False
        names = getattr(data, "classes", range(self.num_classes))
        for name in names:
            axis = percent_axis(f"Average precision of {name}", "AP at IoU 0.5")
            self.axes[f"ap_50/{name}"] = axis._replace(part_of="map_50")
        self.class_names = [str(name) for name in names]

    def on_validation_epoch_end(self) -> None:
        self._log_precisions()

    on_test_epoch_end = on_validation_epoch_end

    def _log_precisions(self) -> None:
        """Logs what the metric knows besides mAP at 0.5: mAP at 0.5 to 0.95, and the average precision of each class.

        Of many classes that is logged after the training only, where no curves are drawn of it.
        """
        for split in ("val", "test"):
            metric: Any = self.metrics[f"{split}/map_50"]
            if not metric.update_called:
                continue
            metric.compute()
            values = {"map_50_95": metric.map_50_95}
            if len(self.class_names) <= MANY_CLASSES or self.trainer.state.fn != "fit":
                values |= {f"ap_50/{self.class_names[label]}": found.ap_50 for label, found in metric.of_class.items()}
            for name, value in values.items():
                self.log_metric(f"{split}/{name}", value, prog_bar=False, batch_size=1)

    def forward(self, image: Tensor) -> Predictions:
        """(B, C, H, W) -> P boxes for each image."""
        H, W = image.shape[-2:]
        return decode(self.net(image), self.anchors, (H, W))

    def losses(self, predictions: Predictions, batch: Boxed) -> dict[str, Tensor]:
        H, W = batch.image.shape[-2:]
        grid = H // self.net.stride, W // self.net.stride
        targets = assign(batch.boxes, batch.labels, self.anchors, grid=grid, size=(H, W))
        return self.loss(predictions, targets, batch.boxes)

    def scored_boxes(self, predictions: Predictions) -> tuple[Tensor, Tensor]:
        return predictions.boxes, predictions.objectness[..., None] * predictions.logits.softmax(-1)
