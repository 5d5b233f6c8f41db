"""YOLO's loss equals an independent computation; it assigns, decodes, selects and predicts boxes as documented."""

import json
import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.ops import box_iou

from datamodules.batches import Boxed
from datamodules.boxes.base import BoxedData, BoxedInMemory
from helpers import draw_picture, quiet_trainer
from zoo.command.actions.predict import predict
from zoo.command.main import main
from zoo.detection.base import MAP50
from zoo.detection.yolo import YOLO, YOLOLoss, YOLONet, assign, decode, paired_iou, read_anchors
from zoo.parts.optim.schedules import Constant

ANCHORS = [[0.2, 0.3], [0.5, 0.4], [0.3, 0.9]]
COLORS = torch.tensor([[220, 40, 40], [40, 60, 220]], dtype=torch.uint8)


# An independent computation: loops over images, anchors and cells, plain numbers, written from the papers.


def overlap(p, q):
    """IoU of two xyxy boxes."""
    common = max(0.0, min(p[2], q[2]) - max(p[0], q[0])) * max(0.0, min(p[3], q[3]) - max(p[1], q[1]))
    return common / ((p[2] - p[0]) * (p[3] - p[1]) + (q[2] - q[0]) * (q[3] - q[1]) - common)


def ciou_loss(p, q):
    """1 - CIoU (Zheng et al. 2020, equations 8 to 11)."""
    apart = ((p[0] + p[2] - q[0] - q[2]) ** 2 + (p[1] + p[3] - q[1] - q[3]) ** 2) / 4
    hull = (max(p[2], q[2]) - min(p[0], q[0])) ** 2 + (max(p[3], q[3]) - min(p[1], q[1])) ** 2
    v = 4 / math.pi**2 * (math.atan((q[2] - q[0]) / (q[3] - q[1])) - math.atan((p[2] - p[0]) / (p[3] - p[1]))) ** 2
    iou = overlap(p, q)
    return 1 - iou + apart / hull + v * v / (1 - iou + v + 1e-12)


def responsible(boxes, anchors, rows, columns, size):
    """(anchor, row, column) -> index of the object, by the rules in `assign`."""
    H, W = size
    fits = {}
    for n, (x0, y0, x1, y1) in enumerate(boxes):
        w, h = (x1 - x0) / W, (y1 - y0) / H
        cell = (min(int((y0 + y1) / 2 / H * rows), rows - 1), min(int((x0 + x1) / 2 / W * columns), columns - 1))
        ious = [overlap((0, 0, w, h), (0, 0, *anchor)) for anchor in anchors]
        fits.setdefault((ious.index(max(ious)), *cell), []).append((-max(ious), n))
    return {predictor: min(rivals)[1] for predictor, rivals in fits.items()}


def cell_by_cell(raw, boxes, labels, anchors, size, kind, coord=5.0, no_object=0.5, ignore=0.6):
    """The terms of the loss of raw outputs (B, A * (5 + K), R, S), summed cell by cell."""
    sums = dict.fromkeys(("box", "object", "no_object", "class"), 0.0)
    (B, channels, rows, columns), (H, W) = raw.shape, size
    each = channels // len(anchors)

    def sigmoid(value):
        return 1 / (1 + math.exp(-value))

    for b in range(B):
        true = [tuple(box) for box in boxes[b].tolist()]
        assigned = responsible(true, anchors, rows, columns, size)
        for a, (pw, ph) in enumerate(anchors):
            for r in range(rows):
                for c in range(columns):
                    tx, ty, tw, th, to, *classes = raw[b, a * each : (a + 1) * each, r, c].tolist()
                    x, y = sigmoid(tx), sigmoid(ty)
                    w, h = pw * math.exp(min(tw, 4)), ph * math.exp(min(th, 4))
                    cx, cy = (c + x) / columns * W, (r + y) / rows * H
                    box = (cx - w * W / 2, cy - h * H / 2, cx + w * W / 2, cy + h * H / 2)
                    if (n := assigned.get((a, r, c))) is None:
                        if max((overlap(box, other) for other in true), default=0.0) <= ignore:
                            sums["no_object"] += no_object * sigmoid(to) ** 2
                        continue
                    x0, y0, x1, y1 = true[n]
                    if kind == "ciou":
                        sums["box"] += coord * ciou_loss(box, true[n])
                    else:
                        sums["box"] += coord * (x - ((x0 + x1) / 2 / W * columns - c)) ** 2
                        sums["box"] += coord * (y - ((y0 + y1) / 2 / H * rows - r)) ** 2
                        sums["box"] += coord * (math.sqrt(w) - math.sqrt((x1 - x0) / W)) ** 2
                        sums["box"] += coord * (math.sqrt(h) - math.sqrt((y1 - y0) / H)) ** 2
                    sums["object"] += (sigmoid(to) - overlap(box, true[n])) ** 2
                    sums["class"] += math.log(sum(map(math.exp, classes))) - classes[labels[b][n]]
    terms = {name: value / B for name, value in sums.items()}
    return {"loss": sum(terms.values()), **terms}


def losses_of(raw, boxes, labels, anchors, size, kind="squared", **options):
    anchors = torch.tensor(anchors)
    targets = assign(boxes, labels, anchors, raw.shape[2:], size)
    return YOLOLoss(kind, **options)(decode(raw, anchors, size), targets, boxes)


@st.composite
def scenes(draw):
    """Raw outputs and objects, many of them in one cell."""
    rows, columns, count, classes = (draw(st.integers(1, high)) for high in (3, 4, 3, 3))
    size, seed = (rows * 16, columns * 16), draw(st.integers(0, 10_000))
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(count, len(ANCHORS) * (5 + classes), rows, columns, generator=generator)
    boxes, labels = [], []
    for n in draw(st.lists(st.integers(0, 5), min_size=count, max_size=count)):
        center, half = torch.rand(n, 2, generator=generator), 0.02 + 0.4 * torch.rand(n, 2, generator=generator)
        corners = torch.cat([center - half, center + half], 1).clamp(0, 1)
        boxes.append(corners * torch.tensor([size[1], size[0]] * 2))
        labels.append(torch.randint(0, classes, (n,), generator=generator))
    return raw, boxes, labels, size


@settings(max_examples=60, deadline=None)
@given(scenes(), st.sampled_from(["squared", "ciou"]), st.sampled_from([0.1, 0.6]))
def test_the_loss_equals_the_sum_cell_by_cell(scene, kind, ignore):
    raw, boxes, labels, size = scene
    ours = losses_of(raw, boxes, labels, ANCHORS, size, kind, coord=3.0, no_object=0.7, ignore=ignore)
    theirs = cell_by_cell(raw, boxes, labels, ANCHORS, size, kind, 3.0, 0.7, ignore)
    assert {name: float(value) for name, value in ours.items()} == pytest.approx(theirs, rel=1e-4, abs=1e-4)


def test_the_loss_of_an_example_computed_by_hand():
    """Two cells side by side, one anchor of half the image's width and its height, two classes, all outputs 0.

    So centers are predicted in the middle of the cells, objectness is 1/2, both classes are equally likely. The object
    of 32 x 16 pixels about (16, 16) is in the left cell of 32 x 32, at its center; its IoU with the predicted 32 x 32
    is 1/2.
    """
    raw, size = torch.zeros(1, 7, 1, 2), (32, 64)
    boxes, labels = [torch.tensor([[0.0, 8, 32, 24]])], [torch.tensor([1])]
    losses = losses_of(raw, boxes, labels, [[0.5, 1.0]], size)
    assert losses["box"].item() == pytest.approx(5 * (math.sqrt(1) - math.sqrt(0.5)) ** 2)
    assert losses["object"].item() == pytest.approx(0)  # 1/2 against an IoU of 1/2
    assert losses["no_object"].item() == pytest.approx(0.5 * 0.25)  # of the right cell
    assert losses["class"].item() == pytest.approx(math.log(2))
    moved = losses_of(raw, [boxes[0] + torch.tensor([8, 0, 8, 0])], labels, [[0.5, 1.0]], size)  # a quarter of a cell
    assert (moved["box"] - losses["box"]).item() == pytest.approx(5 * 0.25**2)


def test_the_gradient_of_objectness_reaches_the_score_and_not_the_box():
    raw = torch.randn(2, 24, 3, 3, requires_grad=True, generator=torch.Generator().manual_seed(0))
    boxes, labels = [torch.tensor([[4.0, 4, 30, 40]])] * 2, [torch.tensor([0])] * 2
    losses_of(raw, boxes, labels, ANCHORS, (48, 48))["object"].backward()
    gradient = raw.grad.unflatten(1, (3, 8))
    assert gradient[:, :, 4].any()
    assert not gradient[:, :, :4].any()


@pytest.mark.parametrize("kind", ["squared", "ciou"])
def test_images_without_objects_have_a_loss_too(kind):
    raw = torch.randn(2, 24, 2, 3, requires_grad=True)
    none = [torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.int64)] * 2
    losses = losses_of(raw, *none, ANCHORS, (32, 48), kind)
    losses["loss"].backward()
    assert raw.grad.isfinite().all()
    assert losses["box"] == losses["object"] == losses["class"] == 0
    expected = 0.5 * raw.unflatten(1, (3, 8))[:, :, 4].sigmoid().square().sum() / 2
    assert losses["no_object"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_boxes_without_area_are_ignored():
    raw = torch.randn(1, 24, 2, 2, requires_grad=True)
    flat, label = torch.tensor([[5.0, 5, 5, 20]]), torch.tensor([1])
    for kind in ("squared", "ciou"):
        losses = losses_of(raw, [flat], [label], ANCHORS, (32, 32), kind)
        losses["loss"].backward()
        assert losses["box"] == 0
        assert raw.grad.isfinite().all()


# Coding


@settings(max_examples=40, deadline=None)
@given(scenes())
def test_targets_decode_to_the_boxes_that_were_assigned(scene):
    raw, boxes, labels, (H, W) = scene
    rows, columns = raw.shape[2:]
    anchors = torch.tensor(ANCHORS)
    targets = assign(boxes, labels, anchors, (rows, columns), (H, W))
    anchor = anchors[targets.predictor // (rows * columns)]
    outputs = torch.cat([targets.xy.clamp(1e-6, 1 - 1e-6).logit(), (targets.wh / anchor).log()], 1)
    per_anchor = torch.zeros(len(boxes), len(anchors), rows * columns, raw.shape[1] // len(anchors))
    a, cell = targets.predictor // (rows * columns), targets.predictor % (rows * columns)
    per_anchor[targets.image, a, cell, :4] = outputs
    written = per_anchor.transpose(2, 3).reshape(raw.shape)
    decoded = decode(written, anchors, (H, W)).boxes[targets.image, targets.predictor]
    torch.testing.assert_close(decoded, targets.boxes, atol=1e-2, rtol=1e-4)


def test_each_object_has_the_cell_of_its_center_and_the_anchor_of_its_shape():
    anchors = torch.tensor([[0.1, 0.1], [0.5, 0.2], [0.2, 0.5]])
    boxes = torch.tensor([[28.0, 20, 36, 28], [0, 0, 30, 12], [70, 5, 90, 30], [92, 44, 96, 48]])
    targets = assign([boxes], [torch.arange(4)], anchors, (3, 6), (48, 96))  # cells of 16 x 16
    a, row, column = torch.unravel_index(targets.predictor, (3, 3, 6))
    assert a.tolist() == [0, 1, 2, 0]
    assert row.tolist() == [1, 0, 1, 2]
    assert column.tolist() == [2, 0, 5, 5]
    torch.testing.assert_close(targets.xy[0], torch.tensor([0.0, 0.5]))
    torch.testing.assert_close(targets.wh[1], torch.tensor([30 / 96, 12 / 48]))


def test_of_two_objects_for_one_predictor_the_one_with_the_larger_iou_is_assigned():
    anchors = torch.tensor([[0.5, 0.5]])
    boxes = torch.tensor([[10.0, 10, 50, 50], [14, 14, 46, 46], [14.0, 14, 46, 46]])
    targets = assign([boxes, boxes[:1]], [torch.arange(3), torch.tensor([7])], anchors, (1, 1), (64, 64))
    assert targets.labels.tolist() == [1, 7]  # the first of two equal ones; images do not affect each other
    assert targets.image.tolist() == [0, 1]


def test_paired_iou_is_the_diagonal_of_all_pairs():
    corners = torch.rand(2, 50, 4, generator=torch.Generator().manual_seed(0))
    a, b = torch.cat([corners[..., :2], corners[..., :2] + corners[..., 2:]], 2)
    torch.testing.assert_close(paired_iou(a, b), box_iou(a, b).diag())


# The net


def test_the_passthrough_moves_each_2x2_block_into_the_channels_of_its_cell():
    net, fine, coarse = (
        YOLONet(8, widths=(4, 4, 4), passthrough=3).eval(),
        torch.randn(1, 4, 4, 6),
        torch.zeros(1, 4, 2, 3),
    )
    with torch.no_grad():
        narrow, passed = net.head.passthrough[0](fine), net.head.passthrough(fine)
        assert net.head(fine, coarse).shape == (1, 8, 2, 3)
    for row in range(2):
        for column in range(3):
            block = narrow[0, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            assert torch.equal(passed[0, :, row, column], block.flatten())


def test_images_that_are_not_a_multiple_of_the_stride_are_an_error():
    with pytest.raises(ValueError, match=r"56 x 40 pixels: expected multiples of 16"):
        YOLO(num_classes=2)(torch.zeros(1, 3, 40, 56))


def test_under_autocast_the_loss_is_float32_and_finite():
    model, batch = YOLO(num_classes=2, widths=(8, 8, 16)), rectangles()
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.losses(model(batch.image), batch)
        assert all(len(found["boxes"]) for found in model.detect(batch.image, min_score=0))
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())


# Detections


def selected(model: YOLO, *certain: tuple[int, int, float]) -> list[dict[str, Tensor]]:
    """What `model` selects if it is certain of the boxes (predictor, class, objectness), and of no others."""
    predictions = model(torch.zeros(1, 3, 32, 32))
    predictions.objectness.zero_()
    predictions.logits.fill_(-50)
    for predictor, label, objectness in certain:
        predictions.objectness[0, predictor] = objectness
        predictions.logits[0, predictor, label] = 50
    return model._select(predictions, (32, 32), 0.01)


def test_duplicates_are_dropped_but_not_of_another_class():
    with torch.no_grad():
        model = YOLO(num_classes=2, anchors=[[0.5, 0.5], [0.5, 0.5]], widths=(8, 8, 8)).eval()
        model.net.head.predict.weight.zero_()
        model.net.head.predict.bias.zero_()
        (found,) = selected(model, (0, 1, 0.7), (16, 1, 0.9), (15, 0, 0.6))  # 4 x 4 cells: 0 and 16 are the same box
    assert found["labels"].tolist() == [1, 0]
    assert found["scores"].tolist() == pytest.approx([0.9, 0.6])
    assert found["boxes"].tolist() == [[0, 0, 12, 12], [20, 20, 32, 32]]  # clipped to the image
    with torch.no_grad():
        (both,) = selected(model, (0, 1, 0.7), (16, 0, 0.9))
    assert both["labels"].tolist() == [0, 1]


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_average_precision_of_images_without_objects_or_without_detections():
    none = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}
    box, label = torch.tensor([[2.0, 2, 20, 20]]), torch.tensor([1])
    found, true = {"boxes": box, "scores": torch.tensor([0.5]), "labels": label}, {"boxes": box, "labels": label}
    empty = {"boxes": none["boxes"], "labels": none["labels"]}
    for detections, truth, value in (
        ([found, none], [true, empty], 1.0),
        ([none, none], [true, empty], 0.0),
        ([found | {"scores": torch.tensor([0.4])}, found], [true, empty], 0.5),
        ([none], [empty], -1.0),
    ):
        metric = MAP50()
        metric.update(detections, truth)
        assert metric.compute().item() == pytest.approx(value)


# Anchors


def test_anchors_are_read_from_the_file_of_zoo_anchors(tmp_path):
    path = tmp_path / "anchors.json"
    path.write_text(json.dumps({"anchors": {"1": [[0.2, 0.3]], "2": [[0.1, 0.1], [0.5, 1.0]]}, "unit": "fraction"}))
    assert read_anchors(str(path), 2) == [[0.1, 0.1], [0.5, 1.0]]
    model = YOLO(num_classes=2, anchors=str(path), num_anchors=2, widths=(8, 8, 8))
    trainer = quiet_trainer(max_steps=1, limit_val_batches=0)
    trainer.fit(model, datamodule=Rectangles())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    path.unlink()
    again = YOLO.load_from_checkpoint(tmp_path / "a.ckpt")
    torch.testing.assert_close(again.anchors, torch.tensor([[0.1, 0.1], [0.5, 1.0]]))
    with pytest.raises(FileNotFoundError, match=r"anchors\.json does not exist"):
        read_anchors(str(path), 2)


@pytest.mark.parametrize(
    ("anchors", "message"),
    [
        ([], "expected pairs"),
        ([[0.2]], "expected pairs"),
        ([[0.2, 0.0]], "above 0 and up to 1"),
        ([[32, 48]], "fractions of the image"),
        ([[0.2, float("nan")]], "expected pairs"),
        ([0.2, 0.3], "expected pairs"),
        ('{"anchors": {"3": [[0.1, 0.1]], "4": []}}', "num_anchors is 2: expected one of 3, 4"),
        ('{"anchors": []}', "contains no anchors"),
        ("[1]", "contains no anchors"),
        ("", "contains no anchors"),
    ],
)
def test_wrong_anchors(anchors, message, tmp_path):
    if isinstance(anchors, str):
        (tmp_path / "a.json").write_text(anchors)
        anchors = str(tmp_path / "a.json")
    with pytest.raises(ValueError, match=message):
        read_anchors(anchors, 2)


def test_an_unknown_box_loss_is_an_error():
    with pytest.raises(ValueError, match="box_loss is 'giou': expected 'squared' or 'ciou'"):
        YOLO(box_loss="giou")


# Training


def rectangles(n: int = 4, size: int = 64) -> Boxed:
    """Red and blue rectangles on gray, in 256 levels as float; the third image is empty."""
    images = torch.full((n, 3, size, size), 110, dtype=torch.uint8)
    boxes, labels, draw = [], [], torch.Generator().manual_seed(1)
    for i in range(n):
        images[i] += torch.randint(0, 30, (3, size, size), generator=draw, dtype=torch.uint8)
        rows = []
        for k in range(0 if i == 2 else 2):
            w, h = torch.randint(14, 28, (2,), generator=draw).tolist()
            x, y = k * size // 2, int(torch.randint(0, size - h, (1,), generator=draw))
            images[i, :, y : y + h, x : x + w] = COLORS[(i + k) % 2][:, None, None]
            rows.append([x, y, x + w, y + h])
        boxes.append(torch.tensor(rows, dtype=torch.float32).reshape(-1, 4))
        labels.append(torch.tensor([(i + k) % 2 for k in range(len(rows))], dtype=torch.int64))
    return Boxed(images.float() / 255, boxes, labels)


class Rectangles(BoxedData):
    """The same four images in all splits."""

    mean, std, classes, image_shape = (0.5,) * 3, (0.25,) * 3, ("red", "blue"), (3, 64, 64)

    def __init__(self, **options) -> None:
        super().__init__(**({"batch_size": 4, "eval_batch_size": 3, "val_size": 0} | options))

    def make_datasets(self) -> dict[str, BoxedInMemory]:
        image, boxes, labels = rectangles()
        data = BoxedInMemory((image * 255).round().to(torch.uint8), boxes, labels)
        return {"train": data, "val": data, "test": data}


def small(**options) -> YOLO:
    torch.manual_seed(0)
    learn = {"optimizer": partial(torch.optim.AdamW, lr=5e-3), "schedule": Constant}
    return YOLO(**({"num_classes": 2, "anchors": [[0.3, 0.3]], "widths": (8, 16, 32), "depth": 1} | learn | options))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint of a detector that has learned the four images by heart, and its test metrics."""
    path, model = tmp_path_factory.mktemp("trained") / "trained.ckpt", small()
    trainer = quiet_trainer(max_epochs=80, limit_val_batches=0)
    trainer.fit(model, datamodule=Rectangles())
    trainer.save_checkpoint(path)
    (tested,) = trainer.test(model, datamodule=Rectangles(), verbose=False)
    return path, tested


def test_a_trained_one_has_a_perfect_average_precision_and_the_loss_is_the_sum_of_its_terms(trained):
    _, tested = trained
    assert tested["test/map_50"] == pytest.approx(1)
    assert tested["test/loss"] == pytest.approx(
        sum(tested[f"test/{term}"] for term in ("box", "object", "no_object", "class")), rel=1e-4
    )


def test_it_learns_with_ciou_too():
    model = small(box_loss="ciou")
    trainer = quiet_trainer(max_epochs=50, limit_val_batches=0)
    trainer.fit(model, datamodule=Rectangles())
    assert trainer.test(model, datamodule=Rectangles(), verbose=False)[0]["test/map_50"] > 0.9


# zoo predict


def test_predicted_boxes_are_in_pixels_of_the_image(trained, tmp_path):
    path, _ = trained
    batch, (width, height) = rectangles(), (207, 97)
    for i in range(4):
        pixels = (batch.image[i].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        Image.fromarray(pixels).resize((width, height)).save(tmp_path / f"{i}.png")
    files = [str(tmp_path / f"{i}.png") for i in range(4)]
    results = list(predict(str(path), files, str(tmp_path / "out")))
    for i, result in enumerate(results):
        assert result["file"] == files[i]
        assert Image.open(result["picture"]).size == (width, height)
        wanted = batch.boxes[i] * torch.tensor([width / 64, height / 64] * 2)
        classes = [("red", "blue")[label] for label in batch.labels[i].tolist()]
        assert sorted(found["class"] for found in result["boxes"]) == sorted(classes)
        assert len(result["boxes"]) == len(wanted)
        if len(wanted):
            best = box_iou(torch.tensor([found["xyxy"] for found in result["boxes"]]), wanted)
            assert best.amax(0).min() > 0.5
    assert Image.open(results[2]["picture"]).getpixel((5, 5)) == Image.open(files[2]).convert("RGBA").getpixel((5, 5))


def test_images_of_one_name_do_not_overwrite_each_other(trained, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        draw_picture(1, (50, 40)).save(tmp_path / folder / "x.png")
    files = [str(tmp_path / folder / "x.png") for folder in ("a", "b")]
    results = list(predict(str(trained[0]), files, str(tmp_path / "out")))
    assert [result["picture"] for result in results] == [str(tmp_path / "out" / f) for f in ("x.png", "x-2.png")]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"x.png", "x-2.png"}
    before = (tmp_path / "a" / "x.png").read_bytes()
    (result,) = predict(str(trained[0]), files[:1], str(tmp_path / "a"))
    assert result["picture"] == str(tmp_path / "a" / "x-2.png")
    assert (tmp_path / "a" / "x.png").read_bytes() == before, "the user's own image"


def test_the_command_finds_and_draws(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    tiny = {"data.train_size": 16, "data.val_size": 8, "data.test_size": 8, "data.batch_size": 8}
    (tmp_path / "a.json").write_text(json.dumps({"anchors": {"2": [[0.17, 0.17], [0.37, 0.37]]}}))
    options = [word for name, value in tiny.items() for word in (f"--{name}", str(value))]
    options += ["--trainer.max_epochs", "1", "--model.anchors", "a.json", "--model.num_anchors", "2"]
    assert main(["fit", "detection/yolo-shapes", *options]) == 0, capfd.readouterr().err
    (tmp_path / "a.json").unlink()
    draw_picture(0, (130, 75)).save("p.jpg")
    capfd.readouterr()
    assert main(["predict", "detection/yolo-shapes", "p.jpg", "--out", "found"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert result["picture"] == "found/p.png"
    assert Image.open("found/p.png").size == (130, 75)
