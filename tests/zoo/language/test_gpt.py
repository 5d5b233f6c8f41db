"""GPT equals transformers' GPT-2; a cache changes nothing; losses are exact; it generates text, also by command."""

import itertools
import math
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.loggers import WandbLogger
from torch import nn

from callbacks.galleries.generated_text import GeneratedText
from datamodules.batches import Tokens
from datamodules.text.text import Text
from helpers import fingerprint_of_global_randomness, quiet_trainer, verse
from zoo.command.actions.generate import generate
from zoo.command.main import main
from zoo.language import gpt
from zoo.language.base import LanguageModel
from zoo.language.gpt import GPT, GPTNet, sample_token
from zoo.parts.optim.adamw import AdamW
from zoo.parts.optim.muon import Muon
from zoo.parts.optim.schedules import Constant

TINY = {"num_layers": 2, "num_heads": 2, "dim": 16}
MODERN = {"rotary": True, "rms_norm": True, "squared_relu": True, "bias": False}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "verse.txt").write_text(verse(302))
    return str(tmp_path / "verse.txt")


def text(file: str, **options) -> Text:
    return Text(file, **({"context": 8, "batch_size": 4, "eval_batch_size": 5, "epoch_windows": 24} | options))


def ids(*shape: int, vocab_size: int = 11, seed: int = 0) -> torch.Tensor:
    return torch.randint(vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def scattered(net: nn.Module) -> nn.Module:
    """Weights so large that every part matters, and norms that are not the identity."""
    torch.manual_seed(0)
    for p in net.parameters():
        nn.init.normal_(p, std=0.3)
    return net.eval()


# The net


def test_logits_and_gradients_equal_those_of_transformers_gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel  # takes seconds

    config = GPT2Config(vocab_size=11, n_positions=9, n_embd=16, n_layer=3, n_head=2, tie_word_embeddings=True)
    theirs = scattered(GPT2LMHeadModel(config).double())
    ours = GPTNet(11, context=9, num_layers=3, num_heads=2, dim=16).double().eval()
    state = {name.removeprefix("transformer."): value for name, value in theirs.state_dict().items()}
    copied = {"stem.token.weight": state["wte.weight"], "stem.position.weight": state["wpe.weight"]}
    copied |= {
        "head.0.weight": state["ln_f.weight"],
        "head.0.bias": state["ln_f.bias"],
        "head.1.weight": state["wte.weight"],
    }
    pairs = {
        "ln_1": "norm1",
        "ln_2": "norm2",
        "attn.c_proj": "attention.out",
        "mlp.c_fc": "mlp.0",
        "mlp.c_proj": "mlp.2",
    }
    for i, kind in itertools.product(range(3), ("weight", "bias")):
        for name, own in pairs.items():
            value = state[f"h.{i}.{name}.{kind}"]
            copied[f"blocks.{i}.{own}.{kind}"] = value.T if value.ndim == 2 else value  # theirs are (in, out)
        for own, value in zip(("query", "key", "value"), state[f"h.{i}.attn.c_attn.{kind}"].chunk(3, -1), strict=True):
            copied[f"blocks.{i}.attention.{own}.{kind}"] = value.T if value.ndim == 2 else value
    ours.load_state_dict(copied)
    x = ids(4, 9)
    found, expected = ours(x), theirs(x).logits
    assert expected.std() > 0.5
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-8)
    found.sin().sum().backward()
    expected.sin().sum().backward()
    torch.testing.assert_close(ours.stem.token.weight.grad, theirs.transformer.wte.weight.grad, atol=1e-9, rtol=1e-8)


def test_the_number_of_parameters_is_as_published():
    with torch.device("meta"):
        assert sum(p.numel() for p in GPTNet(50257, 1024, 12, 12, 768).parameters()) == 124_439_808  # GPT-2
        nano = GPTNet(65, bias=False)
    assert sum(p.numel() for p in nano.parameters()) - nano.stem.position.weight.numel() == 10_646_784  # "10.65M"


@pytest.mark.parametrize("name", ["none", "rotary", "rms_norm", "squared_relu", "bias", "tied", "fused"])
def test_options_keep_the_contract(name):
    options = {} if name == "none" else {name: name in ("rotary", "rms_norm", "squared_relu")}
    torch.manual_seed(0)
    model = GPT(11, context=8, **TINY, **options)
    net = model.net
    assert [child for child, _ in net.named_children()] == ["stem", "blocks", "head"]
    assert not any(type(module).__module__.startswith("lightning") for module in net.modules())
    x = ids(3, 8)
    logits = model(x)
    assert logits.shape == (3, 8, 11)
    F.cross_entropy(logits.flatten(0, 1), x.flatten()).backward()
    gradients = {name: p.grad for name, p in net.named_parameters()}
    dead = [name for name, g in gradients.items() if g is None or not g.isfinite().all() or g.abs().max() < 1e-9]
    # Softmax ignores what is added to all scores of a query, and so the bias of the keys.
    assert [name for name in dead if not name.endswith("attention.key.bias")] == []
    assert any("bias" in name for name in gradients) == (name != "bias")
    assert ("head.1.weight" in gradients) == (name == "tied")
    changed = x.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % 11
    with torch.no_grad():
        assert torch.allclose(model(changed)[:, :5], logits[:, :5], atol=1e-6), "no look-ahead"
        assert not torch.allclose(model(changed)[:, 5:], logits[:, 5:])


def test_every_option_but_fused_changes_the_result():
    x = ids(2, 8)
    outputs = {}
    for name in ("fused", "rotary", "rms_norm", "squared_relu"):
        for value in (False, True):
            torch.manual_seed(0)
            net = scattered(GPTNet(11, 8, **TINY, bias=False, **{name: value}))
            outputs[name, value] = net(x).detach()
        assert torch.allclose(outputs[name, False], outputs[name, True], atol=1e-4) == (name == "fused"), name


def test_the_initial_loss_is_that_of_a_uniform_distribution():
    torch.manual_seed(0)
    net = GPTNet(65, 32, num_layers=4, num_heads=4, dim=64)
    x = ids(8, 32, vocab_size=65)
    loss = F.cross_entropy(net(x)[:, :-1].flatten(0, 1), x[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(65), abs=0.1)


def test_dropout_only_in_training():
    net = scattered(GPTNet(11, 8, **TINY, dropout=0.5))
    x = ids(2, 8)
    assert torch.equal(net(x), net(x))
    net.train()
    assert not torch.allclose(net(x), net(x))


def test_more_tokens_than_the_context_are_an_error():
    with pytest.raises(ValueError, match="9 tokens don't fit a context of 8: expected no more"):
        GPTNet(11, 8, **TINY)(ids(1, 9))


# Generation


@pytest.mark.parametrize("options", [{}, MODERN], ids=["learned", "rotary"])
@pytest.mark.parametrize(("context", "prompt"), [(8, 1), (8, 8), (8, 21), (7, 3), (1, 2)])
def test_the_cache_changes_nothing_even_beyond_the_context(monkeypatch, options, context, prompt):
    model = GPT(11, context=context, **TINY, **options).double()
    scattered(model.net)
    seen = []

    def recorded(logits, **options):
        seen.append(logits)
        return sample_token(logits, **options)

    monkeypatch.setattr(gpt, "sample_token", recorded)
    start, runs = ids(2, prompt), []
    for cached in (True, False):
        generator = torch.Generator().manual_seed(5)
        tokens = torch.stack([*model.generate(start, 20, generator=generator, cached=cached)], dim=1)
        runs.append((tokens, torch.stack(seen)))
        seen.clear()
    assert torch.equal(runs[0][0], runs[1][0])
    torch.testing.assert_close(runs[0][1], runs[1][1], atol=1e-10, rtol=1e-8)
    # And both equal the net on the window that the docstring defines.
    whole, slide = torch.cat((start, runs[0][0]), dim=1), max(1, context // 2)
    for step in range(20):
        n = prompt + step
        begin = next(s for s in itertools.count(0, slide) if n - s <= context)
        expected = model.net(whole[:, begin:n])[:, -1]
        torch.testing.assert_close(runs[0][1][step], expected, atol=1e-10, rtol=1e-8)


def test_a_cached_step_costs_one_token(monkeypatch):
    model, lengths = GPT(11, context=8, **TINY), []
    model.net.register_forward_pre_hook(lambda net, inputs: lengths.append(inputs[0].size(1)))
    list(model.generate(ids(1, 3), 12))
    assert lengths == [3, 1, 1, 1, 1, 1, 5, 1, 1, 1, 5, 1]
    lengths.clear()
    list(model.generate(ids(1, 3), 12, cached=False))
    assert lengths == [3, 4, 5, 6, 7, 8, 5, 6, 7, 8, 5, 6]


LOGITS = torch.tensor([[1.0, 3.0, 2.0, -1.0], [0.0, 0.1, 0.2, 5.0]])


def test_temperature_0_takes_the_most_likely_token():
    assert sample_token(LOGITS, temperature=0).tolist() == [1, 3]
    assert sample_token(LOGITS, temperature=1e-3).tolist() == [1, 3]


@pytest.mark.parametrize(
    ("options", "allowed"),
    [({}, {0, 1, 2, 3}), ({"top_k": 2}, {1, 2}), ({"top_k": 1}, {1}), ({"top_k": 99}, {0, 1, 2, 3}),
     ({"top_p": 0.6}, {1}), ({"top_p": 0.66}, {1, 2}), ({"top_p": 0.9}, {0, 1, 2}), ({"top_p": 1e-6}, {1}),
     ({"top_p": 0.66, "temperature": 9.0}, {0, 1, 2}), ({"top_p": 0.9, "top_k": 2}, {1, 2}),
     ({"temperature": 2.0}, {0, 1, 2, 3})],
)  # fmt: skip
def test_tokens_have_the_right_frequencies(options, allowed):
    n = 20_000  # softmax of the row: .087 .645 .237 .031... in float64 below
    tokens = sample_token(LOGITS[:1].expand(n, -1), **options, generator=torch.Generator().manual_seed(0))
    found = tokens.bincount(minlength=4) / n
    weights = (LOGITS[0].double() / options.get("temperature", 1.0)).exp()
    weights[[i for i in range(4) if i not in allowed]] = 0
    expected = weights / weights.sum()
    assert ((found - expected).abs() < 4 * (expected * (1 - expected) / n).sqrt() + 1e-12).all(), (found, expected)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 30), st.floats(0.01, 0.99), st.integers(0, 1000))
def test_top_p_is_the_smallest_set_with_this_total_probability(v, top_p, seed):
    logits = torch.randn(1, v, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    probability = logits.softmax(-1)[0]
    ranked, size = sorted(probability.tolist(), reverse=True), 1
    while sum(ranked[:size]) < top_p - 1e-6:
        size += 1
    allowed = set(probability.topk(min(v, size + 1)).indices.tolist())  # one more: rounding at the edge
    found = set(sample_token(logits.expand(300, -1), top_p=top_p).tolist())
    assert found <= allowed
    assert logits.argmax().item() in found


@pytest.mark.parametrize(
    "options", [{"temperature": -1}, {"top_k": -1}, {"top_p": 0}, {"top_p": 1.1}, {"top_p": math.nan}]
)
def test_sampling_arguments_out_of_range(options):
    with pytest.raises(ValueError, match=r"expected a temperature and a top_k of 0 or more, and a top_p above 0"):
        sample_token(LOGITS, **options)


# Training


def fitted(file: str, model: LanguageModel | None = None, **options) -> tuple[LanguageModel, dict[str, float]]:
    data = text(file)
    if model is None:
        torch.manual_seed(0)
        model = GPT(data.vocab_size, context=8, **TINY)
    trainer = quiet_trainer(**({"max_epochs": 1, "num_sanity_val_steps": 0} | options))
    trainer.fit(model, datamodule=data)
    return model, {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_loss_and_accuracy_are_exact_over_all_tokens(file):
    model, logged = fitted(file)
    data = text(file)
    tokens = data.ids["val"]
    losses, right = [], []
    model.eval()
    for begin in range(0, len(tokens) - 1, 8):  # windows of 8 in batches of 5: unequal at the end, in both ways
        piece = tokens[begin : begin + 9]
        logits = model(piece[None, :-1])[0].detach()
        losses.append(F.cross_entropy(logits, piece[1:], reduction="none"))
        right.append(logits.argmax(-1) == piece[1:])
    assert len(torch.cat(losses)) == len(tokens) - 1
    assert (len(tokens) - 1) % 8
    assert logged["val/loss"] == pytest.approx(torch.cat(losses).mean().item(), rel=1e-5)
    assert logged["val/acc"] == pytest.approx(torch.cat(right).float().mean().item(), rel=1e-5)
    assert 0 < logged["train/loss"] < 5
    assert {"train/acc", "val/acc"} <= logged.keys()
    (tested,) = quiet_trainer().test(model, text(file), verbose=False)
    assert tested["test/loss"] == pytest.approx(logged["val/loss"], rel=1e-6)


class Parity(LanguageModel):
    """With a second head, which predicts whether the first token of a text is even."""

    heads: ClassVar = {"loss": "acc", "odd_loss": "odd_acc"}

    def __init__(self, vocab_size: int) -> None:
        net = nn.ModuleDict({"token": nn.Embedding(vocab_size, vocab_size), "odd": nn.Linear(vocab_size, 2)})
        super().__init__(net, vocab_size, 8, partial(torch.optim.SGD, lr=0.0), Constant)

    def targets(self, batch: Tokens) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        x = self.net["token"](batch.input_ids)
        return {"loss": (x, batch.labels), "odd_loss": (self.net["odd"](x[:, 0]), batch.input_ids[:, 0] % 2)}


def test_a_subclass_may_have_further_heads(file):
    model, logged = fitted(file, Parity(text(file).vocab_size))
    assert {f"{split}/{name}" for split in ("train", "val") for name in ("loss", "acc", "odd_loss", "odd_acc")} <= set(
        logged
    )
    batch = Tokens(ids(3, 8), ids(3, 8, seed=1))
    batch.labels[0, :5] = -100
    model.trainer = quiet_trainer()
    found = silent(model).step(batch, "train")
    terms = [
        F.cross_entropy(logits.flatten(0, -2), labels.flatten()) for logits, labels in model.targets(batch).values()
    ]
    torch.testing.assert_close(found["loss"], sum(terms))
    assert torch.equal(found["logits"], model.targets(batch)["loss"][0])


def silent(model: LanguageModel) -> LanguageModel:
    model.log = lambda *_, **__: None
    return model


def test_with_the_modern_options_it_learns_a_batch_by_heart():
    torch.manual_seed(0)
    model = silent(GPT(11, context=16, **TINY, **MODERN))
    batch = Tokens(ids(4, 16), ids(4, 16, seed=1))  # random, so that the target depends only on the position
    optimizer = AdamW(model.net.named_parameters(), lr=1e-2)
    losses = []
    for _ in range(150):
        loss = model.training_step(batch, 0)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if losses[-1] < 0.1:
            break
    assert losses[0] > 2
    assert losses[-1] < 0.1, losses


def test_decay_is_for_matrices_only():
    net = GPTNet(11, 8, **TINY)
    decayed, others = AdamW(net.named_parameters(), weight_decay=0.3).param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.3, 0.0)
    assert {p.ndim for p in decayed["params"]} == {2}
    assert {p.ndim for p in others["params"]} == {1}
    assert len(decayed["params"]) + len(others["params"]) == len(list(net.parameters()))
    assert len(AdamW([p for p in net.parameters() if p.ndim == 2]).param_groups) == 1


def test_muon_leaves_embeddings_and_the_head_to_adamw():
    names = {}
    for group in Muon(GPTNet(11, 8, **TINY, tied=False).named_parameters()).param_groups:
        for name in group["param_names"]:
            names[name] = group["muon"]
    assert {name for name, muon in names.items() if not muon and "norm" not in name and "bias" not in name} == {
        "stem.token.weight", "stem.position.weight", "head.0.weight", "head.1.weight"
    }  # fmt: skip


def test_a_loaded_one_is_still_tied(file, tmp_path):
    model, _ = fitted(file)
    model.trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = GPT.load_from_checkpoint(tmp_path / "a.ckpt")
    assert again.net.head[1].weight is again.net.stem.token.weight
    assert torch.equal(again.net.head[1].weight, model.net.head[1].weight)


def test_data_with_a_longer_context_and_checkpoints_of_another_vocabulary_are_an_error(file, tmp_path):
    model, _ = fitted(file)
    with pytest.raises(ValueError, match=r"windows of 16 tokens, but the model sees 8 .* set --data\.context"):
        quiet_trainer(max_steps=1).fit(GPT(model.vocab_size, context=8, **TINY), text(file, context=16))
    model.trainer.save_checkpoint(tmp_path / "a.ckpt")
    Path(file).write_text(verse(302).replace("t", "T"))  # as many characters, but others
    with pytest.raises(ValueError, match=r"trained with another vocabulary .* use the text and tokenizer"):
        quiet_trainer().validate(GPT(model.vocab_size, context=8, **TINY), text(file), ckpt_path=tmp_path / "a.ckpt")
    Path(file).write_text(verse(299))  # another text in the same letters is welcome
    quiet_trainer().validate(
        GPT(model.vocab_size, context=8, **TINY), text(file), ckpt_path=tmp_path / "a.ckpt", verbose=False
    )


# The gallery of generated text


def test_samples_are_written_and_nothing_else_changes(file, tmp_path):
    def run(*callbacks):
        torch.manual_seed(0)
        model = GPT(text(file).vocab_size, context=8, **TINY, dropout=0.1)
        fitted(file, model, max_epochs=2, callbacks=list(callbacks), default_root_dir=tmp_path)
        return model, fingerprint_of_global_randomness()

    samples = GeneratedText(prompt="to ", num_tokens=30)
    (with_samples, after), (without, expected) = run(samples), run()
    assert after == expected
    for a, b in zip(with_samples.parameters(), without.parameters(), strict=True):
        assert torch.equal(a, b)
    assert [(epoch, step) for epoch, step, _, _ in samples.samples] == [(1, 6), (2, 12)]
    page = (tmp_path / "pictures" / "samples.md").read_text()
    assert page.index("## Epoch 2, step 12, val/loss ") < page.index("## Epoch 1, step 6, val/loss ")
    for _, _, loss, written in samples.samples:
        assert written.startswith("to ")
        assert len(written) == 33
        assert written.strip("\n") in page
        assert f"val/loss {loss:.3f}" in page
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["samples.md"]


def test_samples_depend_on_the_weights_and_their_seed_only(file):
    model, _ = fitted(file, GPT(text(file).vocab_size, context=8, **TINY, dropout=0.5))
    model.train()
    written = []
    for seed, global_seed in ((0, 1), (0, 2), (3, 1)):
        torch.manual_seed(global_seed)
        before = fingerprint_of_global_randomness()
        written.append(GeneratedText(num_tokens=40, seed=seed).write(model.trainer, model))
        assert fingerprint_of_global_randomness() == before
        assert all(module.training for module in model.modules())
    assert written[0] == written[1] != written[2]


def test_samples_continue_after_a_resume(file, tmp_path):
    callback = GeneratedText(num_tokens=10, every_n_epochs=2)
    model, _ = fitted(file, max_epochs=4, callbacks=[callback], default_root_dir=tmp_path)
    assert [sample[0] for sample in callback.samples] == [2, 4]
    model.trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = GeneratedText(num_tokens=10, every_n_epochs=2)
    trainer = quiet_trainer(max_epochs=6, callbacks=[again], default_root_dir=tmp_path)
    trainer.fit(GPT(model.vocab_size, context=8, **TINY), text(file), ckpt_path=tmp_path / "a.ckpt")
    assert [sample[0] for sample in again.samples] == [2, 4, 6]
    assert again.samples[:2] == callback.samples
    fitted(file, max_epochs=2, callbacks=[again], default_root_dir=tmp_path)
    assert [sample[0] for sample in again.samples] == [2], "another training starts from the beginning"


def test_wandb_gets_a_table_of_samples(file, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "wandb-data"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(offline=True, save_dir=tmp_path)
    try:
        fitted(file, callbacks=[GeneratedText(num_tokens=10)], logger=logger, default_root_dir=tmp_path)
    finally:
        logger.experiment.finish()
    (table,) = tmp_path.glob("wandb/offline-run-*/files/media/table/samples*.json")
    assert '"text"' in table.read_text()


@pytest.mark.parametrize("prompt", ["é", ""])
def test_a_prompt_for_samples_must_be_known(file, prompt):
    with pytest.raises(ValueError, match=r"not all known to the tokenizer: .* set another prompt"):
        fitted(file, callbacks=[GeneratedText(prompt=prompt)])


def test_samples_need_a_model_that_generates_text(file):
    with pytest.raises(
        ValueError, match=r"GeneratedText needs a module with `generate`.* Parity and Text do not have both"
    ):
        fitted(file, Parity(text(file).vocab_size), callbacks=[GeneratedText()])


# The command


@pytest.fixture
def trained(fake_data, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    small = ["--model.num_layers", "1", "--model.dim", "16", "--data.epoch_windows", "32", "--trainer.max_epochs", "1"]
    assert main(["fit", "language/gpt-char-cpu", "--data.data_dir", str(fake_data), *small]) == 0
    (checkpoint,) = tmp_path.glob("runs/language/gpt-char-cpu/*/checkpoints/last.ckpt")
    return checkpoint


def test_zoo_generate_continues_a_prompt(trained, capfd):
    def out(*words: str) -> str:
        capfd.readouterr()
        assert main(["generate", "language/gpt-char-cpu", "--prompt", "to be", "--tokens", "150", *words]) == 0
        return capfd.readouterr().out

    first = out()
    assert first.startswith("to be")
    assert len(first) == 5 + 150 + 1
    assert set(first) <= set(verse())
    assert out() == first
    assert out("--seed", "1") != first
    assert out("--temperature", "0") == out("--temperature", "0", "--seed", "1") == out("--top_k", "1")
    pieces = list(generate(str(trained), "to be", 150, top_k=40))
    assert "".join(pieces) + "\n" == first
    assert len(pieces) == 151, "a piece for the prompt, and one for each token"


def test_bad_arguments_of_generate_are_one_line(trained, capfd):
    for words, part in (
        (["--prompt", "é"], "character 'é' (U+00E9) is unknown"),
        (["--prompt", ""], "the prompt is empty"),
        (["--top_p", "1.5"], "top_p=1.5: expected"),
        (["--temperature", "-1"], "temperature=-1"),
        (["--tokens", "-1"], "tokens is -1"),
    ):
        capfd.readouterr()
        assert main(["generate", str(trained), *words]) == 2
        captured = capfd.readouterr()
        assert not captured.out
        assert part in captured.err
        assert len(captured.err.splitlines()) == 1


def test_text_of_bpe_tokens_is_generated_too(fake_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("greek.txt").write_text("μῆνιν ἄειδε θεὰ Πηληϊάδεω Ἀχιλῆος\n" * 60, encoding="utf-8")
    words = ["--data.file", "greek.txt", "--data.tokenizer", "bpe", "--data.vocab_size", "270", "--data.context", "16"]
    small = ["--model.num_layers", "1", "--model.dim", "16", "--trainer.max_steps", "2"]
    assert main(["fit", "language/gpt-char-cpu", *words, *small]) == 0
    (checkpoint,) = Path("runs").glob("*/*/*/checkpoints/last.ckpt")
    pieces = list(generate(str(checkpoint), "μῆνιν", 60, temperature=3.0, top_k=0))
    assert pieces[0] == "μῆνιν"
    assert "".join(pieces).encode()
    assert "" in pieces, "the bytes of a letter wait for the others"


def test_a_checkpoint_that_does_not_generate_text_is_an_error(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "digits/small", "--trainer.max_steps", "1", "--trainer.limit_val_batches", "2"]) == 0
    capfd.readouterr()
    assert main(["generate", "digits/small"]) == 2
    assert "tokenizer" in capfd.readouterr().err


def test_unusable_texts_are_one_line(fake_data, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("short.txt").write_text("abc")
    Path("latin.txt").write_bytes(b"to be \xff")
    for words, part in (
        (["--data.file", "absent.txt"], "zoo: absent.txt does not exist, neither here nor in"),
        (["--data.file", "short.txt"], "zoo: short.txt has 2 tokens to train on and 1 for validation"),
        (["--data.file", "latin.txt"], "zoo: latin.txt is not UTF-8: byte 0xff at offset 6"),
        (
            ["--data.tokenizer", "letters"],
            "zoo: --data.tokenizer is letters: expected 'characters' or 'bpe' or 'wordpiece';",
        ),
    ):
        capfd.readouterr()
        assert main(["fit", "language/gpt-char-cpu", "--data.data_dir", str(fake_data), *words]) == 2
        line = capfd.readouterr().err.splitlines()[-1]
        assert part in line
        assert len(line.replace(str(tmp_path), "")) < 200
    assert not Path("runs").exists()
