"""YOLOv2: a grid of cells, each of which predicts a box and a class for every anchor, in one pass of one net.

Redmon and Farhadi 2017, "YOLO9000: Better, Faster, Stronger", section 2; the loss is that of Redmon et al. 2016,
"You Only Look Once", equation 3, as the Extensive Vision AI course teaches it.

B batch, C channels, H height, W width, K classes; R rows and S columns of the grid, A anchors, P = A * R * S
predictors, M objects that a predictor answers for. Boxes are xyxy in pixels of the net's input.
"""

import json
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_area, box_iou, complete_box_iou_loss

from callbacks.figures.axis import loss_axis
from datamodules.batches import Boxed
from zoo.detection.base import Detector
from zoo.parts.convs import conv_norm_act

FIRST_OBJECTNESS_LOGIT = -4.0  # objectness at the start, a logit: almost all predictors see no object
ANCHORS = [[0.10, 0.13], [0.25, 0.31], [0.39, 0.62], [0.73, 0.37], [0.86, 0.77]]  # those of Darknet's YOLOv2 on VOC
MAX_LOG_SCALE = 4.0  # log of how many times its anchor a box may measure; exp() of more might overflow


class Predictions(NamedTuple):
    """What the net's output says.

    xy: (B, P, 2) centres within their cells, 0..1.
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
    """What the responsible predictors should have said: `xy`, `wh`, `boxes` as above with (M, ...), and labels (M,).

    image, predictor: (M,) which of the (B, P) is responsible.
    """

    image: Tensor
    predictor: Tensor
    xy: Tensor
    wh: Tensor
    boxes: Tensor
    labels: Tensor


def decode(raw: Tensor, anchors: Tensor, size: tuple[int, int]) -> Predictions:
    """The net's output (B, A * (5 + K), R, S), for anchors (A, 2) and images of `size` (H, W), section 2, figure 3.

    Each anchor has the channels x, y, width, height, objectness and K classes, in this order.
    """
    rows, columns = raw.shape[2:]
    raw = raw.float().unflatten(1, (len(anchors), -1)).permute(0, 1, 3, 4, 2)  # (B, A, R, S, 5 + K)
    y, x = torch.meshgrid(*(torch.arange(n, device=raw.device) for n in (rows, columns)), indexing="ij")
    xy = raw[..., :2].sigmoid()
    wh = anchors[:, None, None] * raw[..., 2:4].clamp(max=MAX_LOG_SCALE).exp()
    centre = (torch.stack([x, y], -1) + xy) / raw.new_tensor([columns, rows])
    boxes = torch.cat([centre - wh / 2, centre + wh / 2], -1) * raw.new_tensor([*size[::-1]] * 2)
    parts = xy, wh, boxes, raw[..., 4].sigmoid(), raw[..., 5:]
    return Predictions(*(part.flatten(1, 3) for part in parts))


def assign(
    boxes: list[Tensor], labels: list[Tensor], anchors: Tensor, grid: tuple[int, int], size: tuple[int, int]
) -> Targets:
    """Gives each object to the cell of its centre, and there to the anchor of the shape most like its own (by IoU).

    Where two objects fall to one predictor, the one that is more like the anchor keeps it, of equals the first; nobody
    answers for the other. Boxes without area are passed over.

    Args:
        boxes, labels: of each image, as in `Boxed`.
        anchors: (A, 2) fractions of the image.
        grid: (R, S).
        size: (H, W) of the images.
    """
    (rows, columns), (H, W) = grid, size
    image = torch.cat([torch.full_like(of_image, i) for i, of_image in enumerate(labels)])
    box, label = torch.cat(boxes).float(), torch.cat(labels)
    wh = (box[:, 2:] - box[:, :2]) / box.new_tensor([W, H])
    place = (box[:, :2] + box[:, 2:]) / 2 * box.new_tensor([columns / W, rows / H])  # in cells
    column, row = (place[:, i].long().clamp(0, n - 1) for i, n in enumerate((columns, rows)))
    common = torch.minimum(wh[:, None], anchors).prod(2)
    fit, anchor = (common / (wh.prod(1)[:, None] + anchors.prod(1) - common)).max(1)
    predictor = (anchor * rows + row) * columns + column

    order = fit.argsort(descending=True, stable=True)
    order = order[(wh > 0).all(1)[order]]
    key = image[order] * len(anchors) * rows * columns + predictor[order]
    key, by_key = key.sort(stable=True)
    kept = order[by_key[torch.cat([key[:1] >= 0, key[1:] != key[:-1]])]].sort().values
    xy = place - torch.stack([column, row], 1)
    return Targets(*(values[kept] for values in (image, predictor, xy, wh, box, label)))


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """(M, 4) and (M, 4) -> (M,), box by box."""
    common = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(0).prod(1)
    return common / (box_area(a) + box_area(b) - common).clamp_min(1e-9)


class YOLOLoss(nn.Module):
    """Sum of squared errors over all predictors, cross-entropy for the class; divided by the number of images.

    Differs from equation 3 in: classes by cross-entropy, as in the course; and, as in Darknet's YOLOv2, a predictor
    that is not responsible isn't punished where its box meets some object with an IoU above `ignore`.

    Args:
        box: "squared", of the centre within its cell and of the square roots of width and height as fractions of the
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
        """The parts, weighted, and their sum as "loss"; all are scalars. `boxes` are those of all objects."""
        xy, wh, box, objectness, logits = (part[targets.image, targets.predictor] for part in predictions)
        if self.box == "ciou":
            error = complete_box_iou_loss(box, targets.boxes)
        else:
            error = ((xy - targets.xy) ** 2).sum(1) + ((wh.sqrt() - targets.wh.sqrt()) ** 2).sum(1)
        with torch.no_grad():
            iou = paired_iou(box, targets.boxes)
            best = [
                box_iou(found, true.float()).amax(1) if len(true) else found.new_zeros(len(found))
                for found, true in zip(predictions.boxes, boxes, strict=True)
            ]
            punished = torch.stack(best) <= self.ignore
            punished[targets.image, targets.predictor] = False
        parts = {
            "box": self.coord * error.sum(),
            "object": ((objectness - iou) ** 2).sum(),
            "no_object": self.no_object * (predictions.objectness**2 * punished).sum(),
            "class": F.cross_entropy(logits, targets.labels, reduction="sum"),
        }
        parts = {name: part / len(boxes) for name, part in parts.items()}
        return {"loss": torch.stack([*parts.values()]).sum(), **parts}


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2015)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(conv_norm_act(channels, channels), conv_norm_act(channels, channels, act=False))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.branch(x))


class Head(nn.Module):
    """The passthrough layer and the predicting 1x1 convolution.

    The finer map is narrowed, each 2x2 pixels become one of four times as many channels, and the two maps go on as one
    (section 2, "Fine-Grained Features").

    Shape: (B, fine, 2R, 2S) and (B, coarse, R, S) -> (B, outputs, R, S).
    """

    def __init__(self, fine: int, coarse: int, passed: int, outputs: int) -> None:
        super().__init__()
        self.passthrough = nn.Sequential(conv_norm_act(fine, passed, 1), nn.PixelUnshuffle(2))
        self.mix = conv_norm_act(4 * passed + coarse, coarse)
        self.predict = nn.Conv2d(coarse, outputs, 1)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        return self.predict(self.mix(torch.cat([self.passthrough(fine), coarse], 1)))


class YOLONet(nn.Module):
    """A small residual net that halves its maps in the stem and in each stage, and the head over the last two maps.

    Args:
        outputs: A * (5 + K).
        in_channels: C.
        widths: channels of the stem and of the stages, of which there are two or more.
        depth: residual blocks in each stage.
        passed: channels of the passthrough before they become four times as many.

    Shape: (B, C, H, W) -> (B, outputs, H / stride, W / stride), where the stride is 2 for each of the widths.

    Raises:
        ValueError: if H or W is no multiple of the stride.
    """

    def __init__(
        self,
        outputs: int,
        in_channels: int = 3,
        widths: tuple[int, ...] = (24, 32, 64, 128),
        depth: int = 2,
        passed: int = 16,
    ) -> None:
        super().__init__()
        self.stride = 2 ** len(widths)
        self.stem = conv_norm_act(in_channels, widths[0], stride=2)
        self.stages = nn.Sequential()
        for inputs, width in pairwise(widths):
            blocks = (Residual(width) for _ in range(depth))
            self.stages.append(nn.Sequential(conv_norm_act(inputs, width, stride=2), *blocks))
        self.head = Head(widths[-2], widths[-1], passed, outputs)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2] % self.stride or x.shape[-1] % self.stride:
            raise ValueError(
                f"the images are {x.shape[-1]} x {x.shape[-2]} pixels: expected multiples of {self.stride}, "
                "the stride of the net; choose another image size"
            )
        fine = self.stages[:-1](self.stem(x))
        return self.head(fine, self.stages[-1](fine))


def read_anchors(anchors: list[list[float]] | str, num_anchors: int | None = None) -> list[list[float]]:
    """Pairs [width, height] in fractions of the image: checks them, and reads them if they are named by their file.

    Raises:
        ValueError: if they are something else, or the file has none for `num_anchors`.
        FileNotFoundError: if there is no such file.
    """
    if isinstance(anchors, str):
        path = Path(anchors)
        try:
            table = json.loads(path.read_text())["anchors"]
            anchors, known = table.get(str(num_anchors)), [*table]
        except FileNotFoundError:
            raise FileNotFoundError(f"{path} does not exist: expected an anchors.json; run `zoo anchors`") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(f"{path} holds no anchors: expected what `zoo anchors` writes; run it again") from None
        if anchors is None:
            raise ValueError(f"num_anchors is {num_anchors}: expected one of {', '.join(known)}, as in {path}")
    pairs = [tuple(pair) if isinstance(pair, (list, tuple)) else () for pair in anchors]
    if not pairs or not all(len(pair) == 2 and all(0 < side <= 1 for side in pair) for pair in pairs):
        raise ValueError(
            f"anchors are {anchors}: expected pairs [width, height] in fractions of the image, above 0 and up to 1; "
            "`zoo anchors` finds them"
        )
    return [list(map(float, pair)) for pair in pairs]


class YOLO(Detector):
    """Trains a `YOLONet`; the other arguments are `Detector`'s.

    Args:
        num_classes: K.
        anchors, num_anchors: pairs [width, height] in fractions of the image; or the `anchors.json` that `zoo anchors`
            wrote, and how many of those in it.
        in_channels, widths, depth, passed: see `YOLONet`.
        box_loss, coord, no_object, ignore: see `YOLOLoss`.

    Raises:
        ValueError, FileNotFoundError: see `read_anchors`.

    >>> model = YOLO(num_classes=3, anchors=[[0.2, 0.2], [0.5, 0.4]])
    >>> model.net(torch.zeros(1, 3, 240, 320)).shape
    torch.Size([1, 16, 15, 20])
    """

    def __init__(
        self,
        num_classes: int = 20,
        anchors: list[list[float]] | str = ANCHORS,
        num_anchors: int | None = None,
        in_channels: int = 3,
        widths: tuple[int, ...] = (24, 32, 64, 128),
        depth: int = 2,
        passed: int = 16,
        box_loss: str = "squared",
        coord: float = 5.0,
        no_object: float = 0.5,
        ignore: float = 0.6,
        **task_options,
    ) -> None:
        pairs = read_anchors(anchors, num_anchors)
        net = YOLONet(len(pairs) * (5 + num_classes), in_channels, widths=widths, depth=depth, passed=passed)
        with torch.no_grad():
            net.head.predict.bias.view(len(pairs), -1)[:, 4] = FIRST_OBJECTNESS_LOGIT
        super().__init__(net, num_classes, **task_options)
        self.hparams.update(anchors=pairs, num_anchors=None)  # a checkpoint needs no other file
        self.register_buffer("anchors", torch.tensor(pairs))
        self.loss = YOLOLoss(box_loss, coord=coord, no_object=no_object, ignore=ignore)
        boxes = {"squared": "squared errors", "ciou": "1 - complete IoU"}[box_loss]
        self.axes = self.axes | {"loss": loss_axis(f"{boxes} and cross-entropy")}

    def forward(self, image: Tensor) -> Predictions:
        """(B, C, H, W) -> P boxes for each image."""
        return decode(self.net(image), self.anchors, image.shape[-2:])

    def losses(self, predictions: Predictions, batch: Boxed) -> dict[str, Tensor]:
        H, W = batch.image.shape[-2:]
        grid = H // self.net.stride, W // self.net.stride
        targets = assign(batch.boxes, batch.labels, self.anchors, grid, (H, W))
        return self.loss(predictions, targets, batch.boxes)

    def scored_boxes(self, predictions: Predictions) -> tuple[Tensor, Tensor]:
        return predictions.boxes, predictions.objectness[..., None] * predictions.logits.softmax(-1)
