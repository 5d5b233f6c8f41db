"""The gallery of detections: what it counts and shows is right, whatever was detected."""

import numpy as np
import pytest
import torch
from lightning import LightningModule
from lightning.pytorch.loggers import WandbLogger
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor
from torchvision.ops import box_iou

from callbacks.figures.boxes import BOX_COLORS, draw_boxes
from callbacks.galleries.detections import DetectionGallery, match
from datamodules.boxes.base import BoxedData, BoxedInMemory
from helpers import quiet_trainer

SIZE = (24, 40)  # H, W
OBJECTS = [[[2, 2, 12, 12], [20, 4, 36, 20]], [], [[5, 5, 15, 20]], [[1, 1, 9, 9]], []]
LABELS = [[0, 1], [], [1], [0], []]


def detections(boxes, scores, labels) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "scores": torch.tensor(scores, dtype=torch.float32),
        "labels": torch.tensor(labels, dtype=torch.int64),
    }


FOUND = [
    detections([[2, 2, 12, 13], [20, 4, 36, 20], [0, 0, 3, 3]], [0.9, 0.8, 0.1], [0, 1, 1]),  # all right; one is unsure
    detections([], [], []),  # no objects, no detections
    detections([[5, 5, 15, 20], [5, 6, 15, 20], [30, 1, 38, 9]], [0.9, 0.7, 0.6], [0, 1, 0]),  # two false
    detections([], [], []),  # missed
    detections([[3, 3, 9, 9]], [0.5], [1]),  # false on an image without objects
]
MISTAKES = [0, 0, 2, 1, 1]


class Scenes(BoxedData):
    mean, std, classes, image_shape = (0.5,) * 3, (0.25,) * 3, ("cat", "dog"), (3, *SIZE)

    def __init__(self, **options) -> None:
        super().__init__(val_size=0, eval_batch_size=2, **options)

    def make_datasets(self) -> dict[str, BoxedInMemory]:
        images = torch.stack([torch.full((3, *SIZE), 40 * i, dtype=torch.uint8) for i in range(5)])
        boxes = [torch.tensor(rows, dtype=torch.float32).reshape(-1, 4) for rows in OBJECTS]
        data = BoxedInMemory(images, boxes, [torch.tensor(rows, dtype=torch.int64) for rows in LABELS])
        return dict.fromkeys(("train", "val", "test"), data)


class Oracle(LightningModule):
    """Returns the detections above, by the gray of the image."""

    def __init__(self, found=FOUND) -> None:
        super().__init__()
        self.found, self.weight = found, torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        return self.weight * 0

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        gray = (((batch.image[:, 0, 0, 0] * 0.25 + 0.5) * 255) / 40).round().int().tolist()
        return {"detections": [self.found[i] for i in gray]}

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def run(gallery: DetectionGallery, folder, found=FOUND, **options) -> DetectionGallery:
    trainer = quiet_trainer(callbacks=[gallery], default_root_dir=folder, **options)
    trainer.test(Oracle(found), Scenes(), verbose=False)
    return gallery


def test_the_worst_come_first_and_are_counted_rightly(tmp_path, published, texts_of):
    gallery = run(DetectionGallery(4), tmp_path)
    assert [(entry.index, entry.rank_key) for entry in gallery.shown] == [(2, 2), (3, 1), (4, 1)]
    assert (gallery.seen, gallery.mistakes) == (5, 3)
    twice, missed, empty = (entry.item for entry in gallery.shown)
    assert twice.right.tolist() == [False, True, False]
    assert twice.found.tolist() == [True]
    assert missed.found.tolist() == [False]
    assert empty.right.tolist() == [False]
    ((name, figure, _),) = published
    assert name == "boxes_test"
    texts = texts_of(figure)
    assert {"image 3: 1 object", "0 detected, 1 missed, 0 false", "dog 0.70", "cat"} <= set(texts)
    assert all(any(part in text for text in texts) for part in ("worst", "3 of 5 images"))
    assert Image.open(tmp_path / "pictures" / "boxes_test.png").size[0] > 1000
    assert not [path for path in (tmp_path / "pictures").iterdir() if path.suffix != ".png"]


def test_the_first_are_shown_right_or_wrong(tmp_path):
    gallery = run(DetectionGallery(3, order="first", min_score=0.05), tmp_path)
    assert [(entry.index, entry.rank_key) for entry in gallery.shown] == [(0, 1), (1, 0), (2, 2)]
    assert len(gallery.shown[0].item.detections["boxes"]) == 3
    torch.testing.assert_close(gallery.shown[2].item.image.unique(), torch.tensor([(80 / 255 - 0.5) / 0.25]))


def test_without_mistakes_there_is_a_figure_too(tmp_path, published, texts_of):
    perfect = [detections(boxes, [0.9] * len(boxes), labels) for boxes, labels in zip(OBJECTS, LABELS, strict=True)]
    assert run(DetectionGallery(3), tmp_path, perfect).shown == []
    assert "No mistakes among 5 test images" in texts_of(published[0].figure)
    assert (tmp_path / "pictures" / "boxes_test.png").is_file()


def test_boxes_lie_on_the_pixels_in_the_color_of_their_class():
    figure = Figure((4, 2.4), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(np.zeros((*SIZE, 3)), aspect="auto")
    boxes, labels = torch.tensor([[10.0, 6, 30, 18], [0, 0, 40, 24]]), torch.tensor([1, 8])
    draw_boxes(axes, boxes, labels, ["dog", ""], torch.tensor([False, True]))
    frames = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert [frame.get_bbox().extents.tolist() for frame in frames] == [[9.5, 5.5, 29.5, 17.5], [-0.5, -0.5, 39.5, 23.5]]
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].astype(int)
    wanted = np.array([int(BOX_COLORS[1][i : i + 2], 16) for i in (1, 3, 5)])
    rows, columns = np.nonzero(np.abs(pixels - wanted).sum(2) < 30)
    assert 58 <= rows.max() - 120 <= 62 or 178 <= rows.max() <= 182  # the lower edge at pixel 18 of 24, 240 high
    assert 298 <= columns.max() <= 302  # the right edge at pixel 30 of 40, 400 wide
    assert [text.get_text() for text in axes.texts] == ["dog"]


def test_matching_takes_the_surest_first_and_no_object_twice():
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        corner = torch.rand(6, 2, generator=generator) * 20
        boxes = torch.cat([corner, corner + 4 + 8 * torch.rand(6, 2, generator=generator)], 1)
        jitter = torch.randn(9, 4, generator=generator)
        found = {
            "boxes": boxes[torch.randint(0, 6, (9,), generator=generator)] + jitter,
            "scores": torch.rand(9, generator=generator),
            "labels": torch.randint(0, 2, (9,), generator=generator),
        }
        labels = torch.randint(0, 2, (6,), generator=generator)
        right, seen = match(found, boxes, labels)
        assert right.sum() == seen.sum()
        free, expected = set(range(6)), set()
        for i in sorted(range(9), key=lambda i: -found["scores"][i]):
            iou = box_iou(found["boxes"][i : i + 1], boxes)[0].tolist()
            fitting = [j for j in free if labels[j] == found["labels"][i] and iou[j] >= 0.5]
            if fitting:
                free.remove(max(fitting, key=lambda j: iou[j]))
                expected.add(i)
        assert set(right.nonzero().flatten().tolist()) == expected
        assert set((~seen).nonzero().flatten().tolist()) == free


def test_during_fit_the_last_validation_is_drawn(tmp_path):
    gallery = DetectionGallery(2)
    quiet_trainer(callbacks=[gallery], default_root_dir=tmp_path, max_epochs=2).fit(Oracle(), Scenes(batch_size=4))
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["boxes_val.png"]
    assert gallery.seen == 5


def test_steps_without_detections_and_unknown_orders_are_errors(tmp_path):
    class Silent(Oracle):
        def test_step(self, batch, batch_idx):
            return None

    with pytest.raises(ValueError, match=r'found no detections .* "detections"'):
        quiet_trainer(callbacks=[DetectionGallery()], default_root_dir=tmp_path).test(Silent(), Scenes(), verbose=False)
    with pytest.raises(ValueError, match="worst, first"):
        DetectionGallery(order="spread")


def test_wandb_gets_the_figure_and_boxes_that_can_be_switched_on_and_off(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "wandb-data"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(offline=True, save_dir=tmp_path)
    try:
        run(DetectionGallery(2), tmp_path, logger=logger)
    finally:
        logger.experiment.finish()
    media = [file.name for file in tmp_path.glob("wandb/offline-run-*/files/media/**/*") if file.is_file()]
    assert sum(name.startswith("boxes_test_images") and name.endswith(".png") for name in media) == 2
    assert sum("boxes2D" in name for name in media) == 4  # truth and predictions of both
    assert any(name.startswith("boxes_test_") and "images" not in name for name in media)
