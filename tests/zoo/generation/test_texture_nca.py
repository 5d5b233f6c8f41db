"""The texture automaton: its pool, its losses, its animation, and the trained ones that come with the package.

Run as a script, `python test_texture_nca.py FOLDER`, this file is two processes of one training.
"""

import itertools
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Callback
from PIL import Image

import processes
from callbacks.figures.animation import strip, write_gif
from callbacks.galleries.animation import Animation
from callbacks.training.gradients import GradientNormalization
from datamodules.batches import ContentStyle
from datamodules.images.single_image import ImagePair
from helpers import draw_picture, fingerprint_of_global_randomness, quiet_trainer
from zoo.command.actions.grow import AUTOMATA, load_automaton, names, save_automaton
from zoo.command.main import main
from zoo.generation.texture_nca import TextureNCA
from zoo.parts.nca import NCA, to_rgb
from zoo.parts.optim.schedules import Constant

SMALL = {"grid": 12, "samples": 2, "pool_size": 5, "steps": (2, 4), "eval_steps": (6, 12)}
LAYERS = ("relu1_1", "relu2_1")


def changing(module: TextureNCA) -> TextureNCA:
    """With a last layer that is not zero, so that states change."""
    torch.nn.init.normal_(module.net.brain[-1].weight, std=0.1)
    return module


def small(weights: str | None = None, **options) -> TextureNCA:
    torch.manual_seed(0)
    return TextureNCA(**(SMALL | {"weights": str(weights), "layers": LAYERS, "schedule": Constant} | options))


@pytest.fixture
def system(vgg_weights: Path):
    return partial(small, vgg_weights)


@pytest.fixture
def data(tmp_path: Path):
    draw_picture(0, (40, 30)).save(tmp_path / "waves.png")
    return lambda length=1: ImagePair(str(tmp_path / "waves.png"), size=16, length=length)


# Training


class Watch(Callback):
    """Keeps the losses of each training step, the pool after it, and the states and steps of the automaton's runs."""

    def __init__(self) -> None:
        self.losses, self.pools, self.starts, self.steps = [], [], [], []

    def on_fit_start(self, trainer, module) -> None:
        run = module.net.run

        def recorded(x, steps, generator):
            if module.training:
                self.starts.append(x.clone())
                self.steps.append(steps)
            return run(x, steps, generator)

        module.net.run = recorded

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self.losses.append(values(outputs))
        self.pools.append(module.pool.clone())


def fit(module: TextureNCA, data: ImagePair, *callbacks: Callback, **options) -> Watch:
    watch = Watch()
    trainer = quiet_trainer(
        **({"max_epochs": 1, "limit_val_batches": 0} | options), callbacks=[GradientNormalization(), watch, *callbacks]
    )
    trainer.fit(module, data)
    return watch


def test_states_are_taken_from_the_pool_and_put_back(system, data):
    module = changing(system(reseed_every=4))
    torch.nn.init.normal_(module.pool)
    before = module.pool.clone()
    watch = fit(module, data(12))
    assert set(watch.steps) == {2, 3, 4}
    for i, (start, pool) in enumerate(zip(watch.starts, watch.pools, strict=True)):
        from_the_pool = [any(torch.equal(state, other) for other in before) for state in start]
        reseeded = [not state.any() for state in start]
        assert sum(reseeded) == (i % 4 == 0)
        assert all(one != other for one, other in zip(from_the_pool, reseeded, strict=True))
        changed = (pool != before).flatten(1).any(1).sum()
        assert changed == 2
        before = pool


def test_the_state_with_the_largest_value_is_the_one_that_is_reseeded(system, data):
    module = system(pool_size=2, reseed_every=1)
    torch.nn.init.uniform_(module.pool, -0.5, 0.5)
    module.pool[1] *= 100
    calm = module.pool[0].clone()
    (start,) = fit(module, data()).starts
    assert sorted(float(state.abs().max()) for state in start) == [0.0, calm.abs().max()]


def test_each_parameter_moves_by_the_learning_rate(system, data):
    module = changing(system(optimizer=partial(torch.optim.SGD, lr=0.01)))
    before = {name: p.detach().clone() for name, p in module.net.named_parameters()}
    fit(module, data())
    for name, p in module.net.named_parameters():
        assert (p - before[name]).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_states_outside_the_range_have_an_overflow_loss(system, data, monkeypatch):
    module = system(overflow=3.0)
    batch = set_up(module, data())
    monkeypatch.setattr(TextureNCA, "global_step", 1)  # the step 0 reseeds
    module.pool.fill_(0.9)
    inside = values(module.losses(batch, "train"))
    module.pool.fill_(-1.5)
    outside = values(module.losses(batch, "train"))
    assert inside["overflow"] == 0
    assert inside["loss"] == pytest.approx(inside["style"])
    assert outside["overflow"] == pytest.approx(0.5)
    assert outside["loss"] == pytest.approx(outside["style"] + 3 * 0.5)


@pytest.mark.parametrize("style", ["gram", "sliced"])
def test_it_learns(system, style, data):
    adam = partial(torch.optim.Adam, lr=5e-3)
    module = system(style=style, grid=16, steps=(12, 16), pool_size=8, layers=("relu1_1",), optimizer=adam)
    losses = [found["style"] for found in fit(module, data(100)).losses]
    assert min(losses[-10:]) < 0.6 * losses[0], losses[::10]


def test_the_style_loss_is_0_for_the_image_itself_and_1_a_layer_for_features_that_are_0(system, data):
    module, generator = system(), torch.Generator().manual_seed(0)
    batch = set_up(module, data())
    flat = {name: maps.flatten(2) for name, maps in module.features(batch.content).items()}
    module.targets = {name: maps @ maps.mT / maps.size(2) for name, maps in flat.items()}
    assert module.style_loss(batch.content, generator).item() == pytest.approx(0, abs=1e-6)
    assert module.style_loss(batch.content.tile(3, 1, 2, 2), generator).item() < 0.3
    zeros = {name: torch.zeros_like(maps) for name, maps in module.features(batch.content).items()}
    module.features.forward = lambda image: zeros
    assert module.style_loss(batch.content, generator).item() == pytest.approx(2, rel=1e-5)


def set_up(module: TextureNCA, data: ImagePair) -> ContentStyle:
    """Sets up both as a Trainer does; returns the batch of the data."""
    data.setup("fit")
    module.trainer = quiet_trainer()
    module.trainer.datamodule = data
    module.setup("fit")
    return data.images


def values(losses: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: value.item() for name, value in losses.items()}


def test_an_untrained_automaton_keeps_the_style_loss_of_the_seed(system, data):
    (found,) = quiet_trainer().test(system(), data(), verbose=False)
    assert found["test/style_drop"] == pytest.approx(1)
    assert found["test/stability"] == pytest.approx(1)


def test_the_test_compares_seed_grown_and_old(system, data, monkeypatch):
    module = system()
    ages = []
    monkeypatch.setattr(module.net, "run", lambda x, steps, generator: ages.append(steps) or x + steps)

    def by_age(image, generator):
        assert 0.5 <= image.max() <= 1, "not clamped as for display"
        return image.new_tensor({0: 8.0, 6: 2.0, 12: 5.0}[sum(ages)])

    monkeypatch.setattr(module, "style_loss", by_age)
    with pytest.warns(UserWarning, match=r"the texture does not last: style loss 2\.00, and 5\.00 in the end"):
        (found,) = quiet_trainer().test(module, data(), verbose=False)
    assert found == {"test/loss": 2, "test/style_drop": 4, "test/stability": 2.5}


def test_it_draws_nothing_from_the_global_generators(system, data):
    module = system()
    batch = set_up(module, data())
    before = fingerprint_of_global_randomness()
    for stage in ("train", "val", "test"):
        module.losses(batch, stage)
    module.sample(2)
    list(module.rollout(3))
    assert fingerprint_of_global_randomness() == before


def test_a_checkpoint_holds_only_the_automaton_and_its_pool_and_needs_no_backbone(system, data, tmp_path):
    module = changing(system())
    trainer = quiet_trainer(max_epochs=1, limit_val_batches=0)
    trainer.fit(module, data(2))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    saved = torch.load(tmp_path / "a.ckpt", weights_only=False)["state_dict"]
    assert set(saved) == {"net.brain.0.weight", "net.brain.0.bias", "net.brain.2.weight", "pool", "draws"}
    again = TextureNCA.load_from_checkpoint(tmp_path / "a.ckpt", weights="nowhere.safetensors", weights_only=False)
    assert torch.equal(again.sample(2), module.sample(2))
    with pytest.raises(ValueError, match=r"pool is \(5, 4, 12, 12\) there and \(5, 4, 9, 9\) here"):
        quiet_trainer().test(system(grid=9), data(), ckpt_path=tmp_path / "a.ckpt", verbose=False)


@pytest.mark.parametrize(
    "wrong", [{"samples": 6}, {"steps": (5, 4)}, {"steps": (0, 4)}, {"grid": 0}, {"reseed_every": 0}, {"samples": 0}]
)
def test_impossible_numbers_are_an_error(system, wrong):
    with pytest.raises(ValueError, match="expected 1 or more of each"):
        system(**wrong)


def train_on(folder: Path, devices: int) -> None:
    class WriteState(Callback):
        def on_fit_end(self, trainer, module) -> None:
            state = {"pool": module.pool, "weights": module.net.state_dict()}
            torch.save(state, folder / f"rank{trainer.global_rank}.pt")

    trainer = quiet_trainer(
        max_epochs=1, limit_val_batches=0, devices=devices, strategy="ddp_notebook", callbacks=[WriteState()]
    )
    trainer.fit(small(folder / "weights.safetensors"), ImagePair(str(folder / "waves.png"), size=16, length=6))


def test_each_rank_has_a_pool_of_its_own_and_the_same_weights(tmp_path, vgg_weights):
    (tmp_path / "weights.safetensors").symlink_to(vgg_weights)
    draw_picture(0, (40, 30)).save(tmp_path / "waves.png")
    processes.run(__file__, tmp_path)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    for name, value in first["weights"].items():
        assert torch.equal(value, second["weights"][name])
    assert first["weights"]["brain.2.weight"].any()
    assert first["pool"].any()
    assert second["pool"].any()
    assert not torch.equal(first["pool"], second["pool"])


# The animation


def test_a_rollout_starts_from_the_seed_state_and_is_the_same_each_time(system):
    module = changing(system())
    frames = list(module.rollout(4))
    assert len(frames) == 4
    assert all(frame.shape == (3, 12, 12) and frame.min() >= 0 and frame.max() <= 1 for frame in frames)
    assert torch.equal(frames[0], torch.full((3, 12, 12), 0.5))
    assert all((one != other).any() for one, other in itertools.pairwise(frames))
    assert all(torch.equal(one, other) for one, other in zip(frames, module.rollout(4), strict=True))
    x = module.net.run(module.net.seed(1, 12, 12), 3 * module.steps_per_frame, torch.Generator().manual_seed(0))
    torch.testing.assert_close(frames[-1], to_rgb(x)[0].detach().clamp(0, 1))


@pytest.mark.parametrize("hook", ["fit", "test"])
def test_the_callback_draws_an_animation_and_changes_nothing_else(system, hook, data, tmp_path):
    module = changing(system())
    trainer = quiet_trainer(
        max_epochs=1, limit_val_batches=0, default_root_dir=tmp_path, callbacks=[Animation(5, fps=10)]
    )
    before = fingerprint_of_global_randomness()
    trainer.test(module, data(), verbose=False) if hook == "test" else trainer.fit(module, data(2))
    assert fingerprint_of_global_randomness() == before
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())
    with Image.open(tmp_path / "pictures" / "animation.gif") as animation:
        assert animation.n_frames == 5
        assert animation.size == (264, 264)  # 22 pixels for each of 12
        assert animation.info["loop"] == 0
        assert animation.info["duration"] == 100
        animation.seek(4)
        assert animation.info["duration"] > 1000
    with Image.open(tmp_path / "pictures" / "animation.png") as image:
        assert image.width > 2 * image.height
    assert not list((tmp_path / "pictures").glob(".*"))


def test_a_module_without_a_rollout_is_an_error(system, data):
    module = system()
    module.rollout = None
    with pytest.raises(ValueError, match="TextureNCA has no `rollout`"):
        quiet_trainer(callbacks=[Animation()]).test(module, data(), verbose=False)
    with pytest.raises(ValueError, match="frames is 1"):
        Animation(1)


def test_a_gif_keeps_its_colors(tmp_path):
    draw = np.random.default_rng(0)
    colors = draw.integers(0, 256, (6, 3), dtype=np.uint8)
    images = [np.tile(color, (300, 280, 1)) for color in colors]
    write_gif(tmp_path / "a.gif", images)
    with Image.open(tmp_path / "a.gif") as animation:
        assert animation.size == (280, 300)
        for i, image in enumerate(images):
            animation.seek(i)
            assert np.abs(np.asarray(animation.convert("RGB")).astype(int) - image).max() <= 8


@pytest.mark.parametrize("count", [2, 3, 76, 101])
def test_a_strip_shows_the_first_and_the_last_frame_and_names_them(count):
    images = [np.full((4, 6, 3), i, np.uint8) for i in range(count)]
    figure = strip(images, 4, "title")
    shown = [int(axes.images[0].get_array()[0, 0, 0]) for axes in figure.axes]
    labels = [text.get_text() for text in figure.texts if text.get_text().startswith("step")]
    assert labels == [f"step {4 * i}" for i in shown]
    assert (shown[0], shown[-1]) == (0, count - 1)
    assert shown == sorted(set(shown))
    assert len(shown) <= 8


# zoo grow


def test_an_automaton_is_saved_and_loaded_with_its_metadata(tmp_path):
    net, metadata = NCA(5, 7), {"texture": "Étude", "steps": "12"}
    torch.nn.init.normal_(net.brain[-1].weight)
    path = save_automaton(net, tmp_path / "new" / "a.safetensors", metadata)
    again, found = load_automaton(path)
    assert found == metadata
    assert (again.channels, again.brain[0].out_channels) == (5, 7)
    x, masks = torch.randn(1, 5, 6, 6), [(torch.rand(1, 1, 6, 6) < 0.5).float() for _ in range(3)]
    assert torch.equal(again(x, masks), net(x, masks))
    assert [file.name for file in path.parent.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("name", names())
def test_an_automaton_that_comes_with_the_package_is_small_and_documented_and_lasts(name):
    path = AUTOMATA / f"{name}.safetensors"
    net, metadata = load_automaton(path)
    assert path.stat().st_size < 5000
    assert metadata["description"]
    assert metadata["license"]
    result = json.loads(metadata["result"])
    assert result["test/style_drop"] > 5
    assert result["test/stability"] < 1.5
    with torch.no_grad():
        x = net.run(net.seed(1, 48, 40), 1500, torch.Generator().manual_seed(1))
    assert x.abs().max() < 3
    assert to_rgb(x).clamp(0, 1).std() > 0.05


def test_at_least_two_textures_of_168_parameters_come_with_the_package():
    nets = [load_automaton(AUTOMATA / f"{name}.safetensors")[0] for name in names()]
    assert sum(sum(p.numel() for p in net.parameters()) == 168 for net in nets) >= 2


def test_grow_animates_and_lists(tmp_path, capsys):
    assert main(["grow"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == names()
    assert all("168 parameters" in line for line in listed if "5856" not in line)
    name = names()[0]
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        options = ["--size", "20", "30", "--steps", "9", "--seed", str(seed), "--out", str(tmp_path / folder)]
        assert main(["grow", name, *options]) == 0
    files = [str(tmp_path / "c" / f"{name}.{suffix}") for suffix in ("gif", "png")]
    assert capsys.readouterr().out.splitlines()[-2:] == files
    with Image.open(files[0]) as animation:
        assert (animation.width / animation.height, animation.n_frames) == (30 / 20, 10)
    first, second, other = ((tmp_path / folder / f"{name}.gif").read_bytes() for folder in "abc")
    assert first == second != other


def test_grow_does_not_wait_for_lightning(tmp_path):
    code = (
        f"import sys; from zoo.command.main import main; main(['grow', {names()[0]!r}, '--steps', '2', "
        f"'--out', {str(tmp_path)!r}]); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True)
    assert list(tmp_path.glob("*.gif"))
    assert {"torch", "matplotlib"} <= set(done.stdout.split())
    assert not {"lightning", "torchvision", "torchmetrics"} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["starry-nigt"], "unknown automaton 'starry-nigt': expected a name or a .safetensors file; nearest: starry"),
        (["gone.safetensors"], "gone.safetensors does not exist"),
        (["broken.safetensors"], "broken.safetensors holds no automaton"),
        (["{name}", "--size", "0"], "size is [0]: expected one or two numbers of pixels from 1 to 1024"),
        (["{name}", "--size", "8", "9", "10"], "size is [8, 9, 10]: expected one or two"),
        (["{name}", "--size", "99999"], "size is [99999]"),
        (["{name}", "--steps", "0"], "steps is 0: expected 1 or more"),
        (["{name}", "--out", "broken.safetensors"], "broken.safetensors is a file: expected a folder"),
    ],
)
def test_bad_input_to_grow_is_one_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("broken.safetensors").write_bytes(b"not a safetensors file")
    assert main(["grow", *(word.format(name=names()[0]) for word in words)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["broken.safetensors"]


if __name__ == "__main__":
    train_on(Path(sys.argv[1]), 2)
