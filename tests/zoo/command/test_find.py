"""`zoo find` draws and prints the images that a sentence describes, from a folder or from drawn scenes."""

from pathlib import Path

import pytest
import torch
from PIL import Image

import zoo
from datamodules.captions.drawn import Captions
from helpers import Synthetic, quiet_trainer
from zoo.classification.resnet_mini import ResNetMini
from zoo.command.actions.find import find
from zoo.command.main import main
from zoo.multimodal.clip import CLIP

SIZE = 24


def data(**options) -> Captions:
    few = {"train_size": 16, "val_size": 12, "test_size": 12, "size": SIZE, "batch_size": 8}
    return Captions(**few | options)


@pytest.fixture
def checkpoint(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = CLIP(45, 16, widths=(4, 8), text_width=16, text_depth=1, text_heads=2)
    trainer = quiet_trainer(max_steps=1, limit_val_batches=0)
    trainer.fit(model, datamodule=data())
    trainer.save_checkpoint(tmp_path / "clip.ckpt")
    return str(tmp_path / "clip.ckpt")


@pytest.fixture
def scenes(tmp_path) -> str:
    """A folder of twelve drawn scenes as image files, larger than what the net sees."""
    pairs = data(size=40)
    pairs.setup("test")
    folder = tmp_path / "scenes" / "deeper"
    folder.mkdir(parents=True)
    for i, image in enumerate(pairs.datasets["test"].columns.image):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i:02}.png")
    return str(tmp_path / "scenes")


def test_a_sentence_finds_images_of_a_folder(checkpoint, scenes, tmp_path, capfd):
    out = tmp_path / "new" / "found.png"
    found = find(checkpoint, "a large red STAR", scenes, out)
    assert len(found) == 10
    assert {name for name, _ in found} < {str(path) for path in Path(scenes).rglob("*.png")}
    assert [cosine for _, cosine in found] == sorted((cosine for _, cosine in found), reverse=True)
    with Image.open(out) as figure:
        assert figure.size[0] > 800
    assert [path.name for path in out.parent.iterdir()] == ["found.png"]
    capfd.readouterr()
    assert main(["find", checkpoint, "a large red STAR", "--folder", scenes]) == 0
    assert capfd.readouterr().out.splitlines() == [f"{cosine:.2f}  {name}" for name, cosine in found]
    assert (tmp_path / "found.png").read_bytes() == out.read_bytes()


def test_images_are_prepared_as_those_that_the_net_was_trained_on(checkpoint, scenes):
    model = zoo.load(checkpoint)
    images = model.preprocess([str(path) for path in sorted(Path(scenes).rglob("*.png"))])
    cosines = model.rank(images, *model.preprocess_text("a red star"))[1][0, :10]
    assert [cosine for _, cosine in find(checkpoint, "a red star", scenes)] == [round(c, 4) for c in cosines.tolist()]


def test_files_that_cannot_be_read_are_left_out_and_said(checkpoint, scenes, tmp_path, capfd):
    wanted = find(checkpoint, "a red star", scenes)
    broken = Path(scenes) / "0.png"
    broken.write_bytes((Path(scenes) / "deeper" / "00.png").read_bytes()[:300])
    assert find(checkpoint, "a red star", scenes) == wanted
    assert f"1 of 13 files cannot be read as images and are left out: {broken}" in capfd.readouterr().err
    (tmp_path / "only").mkdir()
    broken.rename(tmp_path / "only" / "0.png")
    with pytest.raises(ValueError, match=r"none of the 1 files in .*only can be read as an image: .*0\.png"):
        find(checkpoint, "a red star", tmp_path / "only")


def test_without_a_folder_it_searches_drawn_scenes(checkpoint, capfd):
    assert main(["find", checkpoint, "a star"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 10
    assert all(line.split()[1] == "scene" for line in lines)


def test_unknown_words_missing_images_and_other_checkpoints_are_errors(checkpoint, tmp_path):
    with pytest.raises(ValueError, match="'zebra'"):
        find(checkpoint, "a red zebra")
    with pytest.raises(FileNotFoundError, match="holds no image: expected files such as"):
        find(checkpoint, "a red star", tmp_path / "nowhere")
    trainer = quiet_trainer(max_steps=1, limit_val_batches=0)
    other = ResNetMini(num_classes=70, in_channels=3)
    trainer.fit(other, datamodule=Synthetic(image_shape=(3, 24, 24), num_classes=70))
    trainer.save_checkpoint(tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="holds a ResNetMini: expected a module that ranks images"):
        find(str(tmp_path / "other.ckpt"), "a red star")
    assert not list(tmp_path.glob("found*"))
