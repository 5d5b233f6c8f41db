"""The texture automaton: its step, its pool and losses, its film, and the trained ones on the shelf.

Run as a script, `python test_texture_nca.py FOLDER`, this file is two processes of one training.
"""

import itertools
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from test_contracts import below, imported

from callbacks.figures.animation import strip, write_gif
from callbacks.galleries.animation import Animation
from callbacks.training.gradients import GradientNormalization
from datamodules.images.single_image import ImagePair
from helpers import draw_picture, fingerprint_of_global_randomness, quiet_trainer
from zoo.command.main import main
from zoo.command.verbs import grow as shelf
from zoo.generation.texture_nca import TextureNCA
from zoo.parts.nca import FILTERS, NCA, colour
from zoo.parts.optim.schedules import Constant

SMALL = {"grid": 12, "samples": 2, "pool_size": 5, "steps": (2, 4), "eval_steps": (6, 12)}
LAYERS = ("relu1_1", "relu2_1")


def lively(channels: int = 4, hidden: int = 8) -> NCA:
    """An automaton that moves, and gently, so that nothing explodes."""
    torch.manual_seed(0)
    net = NCA(channels, hidden)
    torch.nn.init.normal_(net.brain[-1].weight, std=0.2)
    return net


def moving(module: TextureNCA) -> TextureNCA:
    torch.nn.init.normal_(module.net.brain[-1].weight, std=0.1)
    return module


def masks_of(steps: int, *shape: int) -> list[torch.Tensor]:
    return [(torch.rand(shape) < 0.5).float() for _ in range(steps)]


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


# ------------------------------------------------------------------------------------------------------------- the step


@pytest.mark.parametrize(("channels", "hidden", "count"), [(4, 8, 168), (12, 96, 5856)])
def test_parameters_are_as_many_as_published(channels, hidden, count):
    assert sum(p.numel() for p in NCA(channels, hidden).parameters()) == count
    assert sum(p.numel() for p in TextureNCA(channels, hidden, pool_size=4).parameters()) == count
    assert sum(value.numel() for value in NCA(channels, hidden).state_dict().values()) == count


def slow_step(net: NCA, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """By shifting the torus for each of the nine neighbours, and linear layers for each cell."""
    seen = []
    for channel in x.unbind(1):
        for kernel in FILTERS:
            shifted = [
                weight * channel.roll((1 - i, 1 - j), (1, 2))
                for i, row in enumerate(kernel)
                for j, weight in enumerate(row)
            ]
            seen.append(sum(shifted))
    cells = torch.stack(seen, -1)  # (B, H, W, 4 C)
    first, _, last = net.brain
    hidden = F.linear(cells, first.weight.flatten(1), first.bias).relu()
    return x + mask * F.linear(hidden, last.weight.flatten(1)).permute(0, 3, 1, 2)


@given(st.integers(3, 6), st.integers(1, 9), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_it_equals_shifted_neighbours_and_linear_layers(channels, hidden, batch, height, width, steps):
    net = lively(channels, hidden)
    x, masks = torch.randn(batch, channels, height, width), masks_of(steps, batch, 1, height, width)
    expected = x
    for mask in masks:
        expected = slow_step(net, expected, mask)
    inputs = [x.clone().requires_grad_(), *net.parameters()]
    torch.testing.assert_close(net(inputs[0], masks), expected, atol=1e-4, rtol=1e-4)
    if steps:
        theirs = torch.autograd.grad(expected.square().sum(), inputs[1:])
        ours = torch.autograd.grad(net(inputs[0], masks).square().sum(), inputs[1:])
        torch.testing.assert_close(ours, theirs, atol=1e-2, rtol=1e-3)


def test_the_filters_measure_value_slopes_and_curvature():
    y, x = torch.meshgrid(torch.arange(7.0), torch.arange(7.0), indexing="ij")
    seen = F.conv2d((2 * x - 3 * y + x * x)[None, None], torch.tensor(FILTERS)[:, None])[0, :, 2, 2]  # at (3, 3)
    torch.testing.assert_close(seen, torch.tensor([6.0, 2 + 6, -3.0, 1.0]))


def test_sleeping_cells_stay_as_they_are():
    net, x = lively(), torch.randn(2, 4, 8, 8)
    (mask,) = masks_of(1, 2, 1, 8, 8)
    changed = (net(x, [mask]) != x).any(1, keepdim=True)
    assert torch.equal(changed & (mask == 0), torch.zeros_like(changed))
    assert changed.sum() > 0.9 * mask.sum()


@pytest.mark.parametrize("rate", [0.5, 0.2, 1.0])
def test_cells_are_awake_as_often_as_they_should_be(rate):
    net, x = lively(), torch.randn(1, 4, 100, 100)
    net.update_rate = rate
    torch.nn.init.ones_(net.brain[0].bias)
    changed = (net.run(x, 1, torch.Generator().manual_seed(0)) != x).any(1).float().mean().item()
    assert changed == pytest.approx(rate, abs=0.03)


@given(st.integers(-9, 9), st.integers(-9, 9))
@settings(max_examples=10, deadline=None)
def test_on_a_torus_no_place_is_special(dy, dx):
    net, x, masks = lively(), torch.randn(1, 4, 7, 10), masks_of(5, 1, 1, 7, 10)
    rolled = net(x.roll((dy, dx), (2, 3)), [mask.roll((dy, dx), (2, 3)) for mask in masks])
    torch.testing.assert_close(rolled, net(x, masks).roll((dy, dx), (2, 3)), atol=1e-5, rtol=1e-4)


def test_it_tiles_without_seams():
    net, x, masks = lively(), torch.randn(1, 4, 6, 9), masks_of(5, 1, 1, 6, 9)
    tiled = net(x.tile(1, 1, 2, 3), [mask.tile(1, 1, 2, 3) for mask in masks])
    torch.testing.assert_close(tiled, net(x, masks).tile(1, 1, 2, 3), atol=1e-5, rtol=1e-4)


def test_it_runs_in_float32_under_autocast():
    net, x, masks = lively(), torch.randn(1, 4, 8, 8), masks_of(5, 1, 1, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        found = net(x, masks)
    assert torch.equal(found, net(x, masks))


def test_too_few_channels_are_an_error():
    with pytest.raises(ValueError, match="channels is 2: expected 3 or more"):
        NCA(2, 8)


# --------------------------------------------------------------------------------------------------------- the training


class Watch(Callback):
    """Keeps what each training step returned, the pool, and what the automaton ran."""

    def __init__(self) -> None:
        self.losses, self.pools, self.starts, self.steps = [], [], [], []

    def on_fit_start(self, trainer, module) -> None:
        run = module.net.run

        def noting(x, steps, generator):
            if module.training:
                self.starts.append(x.clone())
                self.steps.append(steps)
            return run(x, steps, generator)

        module.net.run = noting

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
    module = moving(system(reseed_every=4))
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


def test_the_state_that_went_astray_is_the_one_that_is_reseeded(system, data):
    module = system(pool_size=2, reseed_every=1)
    torch.nn.init.uniform_(module.pool, -0.5, 0.5)
    module.pool[1] *= 100
    calm = module.pool[0].clone()
    (start,) = fit(module, data()).starts
    assert sorted(float(state.abs().max()) for state in start) == [0.0, calm.abs().max()]


def test_each_parameter_moves_by_the_learning_rate(system, data):
    module = moving(system(optimizer=partial(torch.optim.SGD, lr=0.01)))
    before = {name: p.detach().clone() for name, p in module.net.named_parameters()}
    fit(module, data())
    for name, p in module.net.named_parameters():
        assert (p - before[name]).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_what_overflows_costs(system, data, monkeypatch):
    module = system(overflow=3.0)
    module.setup("fit")
    monkeypatch.setattr(TextureNCA, "global_step", 1)  # the step 0 reseeds
    module.pool.fill_(0.9)
    inside = values(module.losses(data_of(data)[0], "train"))
    module.pool.fill_(-1.5)
    outside = values(module.losses(data_of(data)[0], "train"))
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


def test_the_style_loss_is_none_for_the_picture_itself_and_one_a_layer_for_nothing(system, data):
    module, batch = system(), next(iter(data_of(data)))
    module.setup("fit")
    generator = torch.Generator().manual_seed(0)
    module.target = {name: maps @ maps.mT / maps.size(2) for name, maps in flat(module.features(batch.content)).items()}
    assert module.style_loss(batch.content, generator).item() == pytest.approx(0, abs=1e-6)
    assert module.style_loss(batch.content.tile(3, 1, 2, 2), generator).item() < 0.3
    silent = {name: torch.zeros_like(maps) for name, maps in module.features(batch.content).items()}
    module.features.forward = lambda image: silent
    assert module.style_loss(batch.content, generator).item() == pytest.approx(2, rel=1e-5)


def flat(maps: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.flatten(2) for name, value in maps.items()}


def data_of(data) -> list:
    made = data()
    made.setup("fit")
    return [made.pictures]


def values(losses: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: value.item() for name, value in losses.items()}


def test_an_untrained_automaton_is_as_good_as_the_seed_for_ever(system, data):
    (found,) = quiet_trainer().test(system(), data(), verbose=False)
    assert found["test/style_drop"] == pytest.approx(1)
    assert found["test/stability"] == pytest.approx(1)


def test_the_measures_compare_seed_grown_and_old(system, data, monkeypatch):
    module = system()
    ages = []
    monkeypatch.setattr(module.net, "run", lambda x, steps, generator: ages.append(steps) or x + steps)

    def by_age(image, generator):
        assert 0.5 <= image.max() <= 1, "not as one sees it"
        return image.new_tensor({0: 8.0, 6: 2.0, 12: 5.0}[sum(ages)])

    monkeypatch.setattr(module, "style_loss", by_age)
    with pytest.warns(UserWarning, match=r"the texture does not last: style loss 2\.00, and 5\.00 in the end"):
        (found,) = quiet_trainer().test(module, data(), verbose=False)
    assert found == {"test/loss": 2, "test/style_drop": 4, "test/stability": 2.5}


def test_a_resumed_training_is_the_one_that_was_stopped(system, data, tmp_path):
    whole = system()
    fit(whole, data(3), max_epochs=2)
    fit(system(), data(3), ModelCheckpoint(tmp_path, filename="half"), enable_checkpointing=True)
    resumed = system()
    resumed.draws.fill_(5)  # as if seeded otherwise
    trainer = quiet_trainer(max_epochs=2, limit_val_batches=0, callbacks=[GradientNormalization()])
    trainer.fit(resumed, data(3), ckpt_path=tmp_path / "half.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_it_draws_nothing_from_the_global_generators(system, data):
    module = system()
    module.setup("fit")
    batch = data_of(data)[0]
    before = fingerprint_of_global_randomness()
    for stage in ("train", "val", "test"):
        module.losses(batch, stage)
    module.sample(2)
    list(module.rollout(3))
    assert fingerprint_of_global_randomness() == before


def test_a_checkpoint_says_what_it_holds_and_needs_no_weights_to_be_looked_at(system, data, tmp_path):
    module = moving(system())
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
def test_numbers_that_make_no_sense_are_an_error(system, wrong):
    with pytest.raises(ValueError, match="expected 1 or more of each"):
        system(**wrong)


def train_on(folder: Path, devices: int) -> None:
    class WriteDown(Callback):
        def on_fit_end(self, trainer, module) -> None:
            state = {"pool": module.pool, "weights": module.net.state_dict()}
            torch.save(state, folder / f"rank{trainer.global_rank}.pt")

    trainer = quiet_trainer(
        max_epochs=1, limit_val_batches=0, devices=devices, strategy="ddp_notebook", callbacks=[WriteDown()]
    )
    trainer.fit(small(folder / "weights.safetensors"), ImagePair(str(folder / "waves.png"), size=16, length=6))


def test_each_rank_has_a_pool_of_its_own_and_the_same_weights(tmp_path, vgg_weights):
    (tmp_path / "weights.safetensors").symlink_to(vgg_weights)
    draw_picture(0, (40, 30)).save(tmp_path / "waves.png")
    command = [sys.executable, "-W", "ignore", __file__, str(tmp_path)]
    surroundings = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    for name, value in first["weights"].items():
        assert torch.equal(value, second["weights"][name])
    assert first["weights"]["brain.2.weight"].any()
    assert first["pool"].any()
    assert second["pool"].any()
    assert not torch.equal(first["pool"], second["pool"])


# ------------------------------------------------------------------------------------------------------------- the film


def test_a_film_starts_from_the_seed_and_is_the_same_each_time(system):
    module = moving(system())
    frames = list(module.rollout(4))
    assert len(frames) == 4
    assert all(frame.shape == (3, 12, 12) and frame.min() >= 0 and frame.max() <= 1 for frame in frames)
    assert torch.equal(frames[0], torch.full((3, 12, 12), 0.5))
    assert all((one != other).any() for one, other in itertools.pairwise(frames))
    assert all(torch.equal(one, other) for one, other in zip(frames, module.rollout(4), strict=True))
    x = module.net.run(module.net.seed(1, 12, 12), 3 * module.steps_per_frame, torch.Generator().manual_seed(0))
    torch.testing.assert_close(frames[-1], colour(x)[0].detach().clamp(0, 1))


@pytest.mark.parametrize("hook", ["fit", "test"])
def test_the_callback_leaves_a_film_and_everything_else_alone(system, hook, data, tmp_path):
    module = moving(system())
    trainer = quiet_trainer(
        max_epochs=1, limit_val_batches=0, default_root_dir=tmp_path, callbacks=[Animation(5, fps=10)]
    )
    before = fingerprint_of_global_randomness()
    trainer.test(module, data(), verbose=False) if hook == "test" else trainer.fit(module, data(2))
    assert fingerprint_of_global_randomness() == before
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())
    with Image.open(tmp_path / "pictures" / "film.gif") as film:
        assert film.n_frames == 5
        assert film.size == (264, 264)  # 22 pixels for each of 12
        assert film.info["loop"] == 0
        assert film.info["duration"] == 100
        film.seek(4)
        assert film.info["duration"] > 1000
    with Image.open(tmp_path / "pictures" / "film.png") as picture:
        assert picture.width > 2 * picture.height
    assert not list((tmp_path / "pictures").glob(".*"))


def test_a_module_without_a_film_is_an_error(system, data):
    module = system()
    module.film = None
    with pytest.raises(ValueError, match="TextureNCA has no `rollout`"):
        quiet_trainer(callbacks=[Animation()]).test(module, data(), verbose=False)
    with pytest.raises(ValueError, match="frames is 1"):
        Animation(1)


def test_a_gif_keeps_its_colours(tmp_path):
    draw = np.random.default_rng(0)
    colors = draw.integers(0, 256, (6, 3), dtype=np.uint8)
    images = [np.tile(colour, (300, 280, 1)) for colour in colors]
    write_gif(tmp_path / "a.gif", images)
    with Image.open(tmp_path / "a.gif") as film:
        assert film.size == (280, 300)
        for i, image in enumerate(images):
            film.seek(i)
            assert np.abs(np.asarray(film.convert("RGB")).astype(int) - image).max() <= 8


@pytest.mark.parametrize("count", [2, 3, 76, 101])
def test_a_strip_shows_the_first_and_the_last_frame_and_says_which(count):
    images = [np.full((4, 6, 3), i, np.uint8) for i in range(count)]
    figure = strip(images, 4, "title")
    shown = [int(axes.images[0].get_array()[0, 0, 0]) for axes in figure.axes]
    said = [text.get_text() for text in figure.texts if text.get_text().startswith("step")]
    assert said == [f"step {4 * i}" for i in shown]
    assert (shown[0], shown[-1]) == (0, count - 1)
    assert shown == sorted(set(shown))
    assert len(shown) <= 8


# ------------------------------------------------------------------------------------------------------------ the shelf


def test_an_automaton_is_saved_and_loaded_with_its_card(tmp_path):
    net, card = lively(5, 7), {"texture": "Étude", "steps": "12"}
    path = shelf.save(net, tmp_path / "new" / "a.safetensors", card)
    again, found = shelf.load(path)
    assert found == card
    assert (again.channels, again.brain[0].out_channels) == (5, 7)
    x, masks = torch.randn(1, 5, 6, 6), masks_of(3, 1, 1, 6, 6)
    assert torch.equal(again(x, masks), net(x, masks))
    assert [file.name for file in path.parent.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("name", shelf.names())
def test_what_is_shipped_is_small_says_what_it_is_and_lasts(name):
    path = shelf.SHELF / f"{name}.safetensors"
    net, card = shelf.load(path)
    assert path.stat().st_size < 5000
    assert {"texture", "recipe", "steps", "style_drop", "stability", "licence"} <= set(card)
    assert float(card["style_drop"]) > 5
    assert float(card["stability"]) < 1.5
    with torch.no_grad():
        x = net.run(net.seed(1, 48, 40), 1500, torch.Generator().manual_seed(1))
    assert x.abs().max() < 3
    assert colour(x).clamp(0, 1).std() > 0.05


def test_at_least_two_textures_of_168_parameters_are_shipped():
    small = [
        name
        for name in shelf.names()
        if sum(p.numel() for p in shelf.load(shelf.SHELF / f"{name}.safetensors")[0].parameters()) == 168
    ]
    assert len(small) >= 2


def test_grow_animates_and_lists(tmp_path, capsys):
    assert main(["grow"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == shelf.names()
    assert all("168 parameters" in line for line in listed if "5856" not in line)
    name = shelf.names()[0]
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        options = ["--size", "20", "30", "--steps", "9", "--seed", str(seed), "--out", str(tmp_path / folder)]
        assert main(["grow", name, *options]) == 0
    files = [str(tmp_path / "c" / f"{name}.{suffix}") for suffix in ("gif", "png")]
    assert capsys.readouterr().out.splitlines()[-2:] == files
    with Image.open(files[0]) as film:
        assert (film.width / film.height, film.n_frames) == (30 / 20, 10)
    first, second, other = ((tmp_path / folder / f"{name}.gif").read_bytes() for folder in "abc")
    assert first == second != other


def test_grow_does_not_wait_for_lightning():
    todo, seen = {"zoo.command.verbs.grow"}, set()
    while todo:
        path = Path(shelf.__file__).parents[1].joinpath(*todo.pop().split("."))
        found = imported(path.with_suffix(".py"))
        assert not below(found, "lightning", "torchvision", "torchmetrics"), path
        ours = {name.rpartition(".")[0] for name in below(found, "zoo", "callbacks", "datamodules", "experiments")}
        todo, seen = (todo | ours) - seen, seen | ours
    assert seen == {"callbacks.figures.grids", "datamodules.files", "zoo.parts.nca"}


@pytest.mark.parametrize(
    ("words", "said"),
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
def test_bad_input_to_grow_is_one_line(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("broken.safetensors").write_bytes(b"no such thing")
    assert main(["grow", *(word.format(name=shelf.names()[0]) for word in words)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["broken.safetensors"]


if __name__ == "__main__":
    train_on(Path(sys.argv[1]), 2)
