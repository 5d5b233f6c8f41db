"""BERT equals torch's encoder, ignores padding, learns both tasks, and logs what shows a collapse."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning import Callback
from lightning.pytorch.callbacks import LambdaCallback
from PIL import Image
from torch import nn

from callbacks.galleries.masked_tokens import MaskedPair, MaskedTokenGallery, pieces
from datamodules.batches import Tokens
from datamodules.text.sentence_pairs import SentencePairs
from helpers import quiet_trainer
from zoo.language.bert import BERT, BERTNet, TopShare
from zoo.parts.optim.schedules import Constant

SMALL = {"num_layers": 2, "num_heads": 2, "dim": 16}
ADAM = partial(torch.optim.AdamW, lr=3e-3, weight_decay=0.0)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    draw = np.random.default_rng(0)
    words = (
        "the",
        "king",
        "and",
        "his",
        "fool",
        "shall",
        "not",
        "come",
        "to",
        "you",
        "my",
        "lord",
        "night",
        "is",
        "sir",
    )
    path = tmp_path_factory.mktemp("text") / "play.txt"
    path.write_text("\n".join(" ".join(draw.choice(words, 7)) for _ in range(400)), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def data_of(text, **options) -> SentencePairs:
    return SentencePairs(**({"file": str(text), "segment": 8, "vocab_size": 300, "batch_size": 16} | options))


def model_of(data: SentencePairs, **options) -> BERT:
    torch.manual_seed(0)
    training = {"optimizer": ADAM, "schedule": Constant}
    return BERT(**({"vocab_size": data.vocab_size, "context": data.context} | SMALL | training | options))


def batch_of(rows: int = 5, length: int = 12, vocabulary: int = 30, seed: int = 0) -> Tokens:
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, vocabulary, (rows, length), generator=draw)
    attention_mask = torch.arange(length) < torch.randint(length // 2, length + 1, (rows, 1), generator=draw)
    has_target = attention_mask & (torch.rand(rows, length, generator=draw) < 0.4)
    segment = (torch.arange(length) >= length // 2).long().expand(rows, -1)
    labels = ids.where(has_target, torch.tensor(-100))
    return Tokens(ids, labels, attention_mask, segment, torch.randint(2, (rows,), generator=draw))


# The net


def theirs_with_weights_of(net: BERTNet) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(16, 2, 64, 0.0, F.gelu, batch_first=True, norm_first=True)
    theirs = nn.TransformerEncoder(layer, 2, nn.LayerNorm(16), enable_nested_tensor=False).double()
    pairs = {
        "norm1": "norm1",
        "norm2": "norm2",
        "linear1": "mlp.0",
        "linear2": "mlp.2",
        "self_attn.out_proj": "attention.out",
    }
    state = {f"norm.{kind}": net.head.norm.state_dict()[kind] for kind in ("weight", "bias")}
    for i, block in enumerate(net.blocks):
        own = block.state_dict()
        for kind in ("weight", "bias"):
            state |= {f"layers.{i}.{to}.{kind}": own[f"{name}.{kind}"] for to, name in pairs.items()}
            three = [own[f"attention.{name}.{kind}"] for name in ("query", "key", "value")]
            state[f"layers.{i}.self_attn.in_proj_{kind}"] = torch.cat(three)
    theirs.load_state_dict(state)
    return theirs


@pytest.mark.parametrize("fused", [True, False])
def test_its_encoder_equals_torchs_in_values_and_gradients(fused):
    torch.manual_seed(0)
    net, batch = BERTNet(30, 12, **SMALL, fused=fused).double(), batch_of()
    for parameter in net.parameters():
        parameter.data = torch.randn_like(parameter) / 3  # biases and norms too
    theirs = theirs_with_weights_of(net)
    embedded = net.stem(batch.input_ids, batch.token_type_ids).detach()
    probe = torch.randn(5, 12, 16, dtype=torch.float64) * batch.attention_mask[..., None]
    results = []
    for encoder, blocks in ((theirs, theirs.layers), (None, net.blocks)):
        x = embedded.clone().requires_grad_()
        if encoder is theirs:
            y = theirs(x, src_key_padding_mask=~batch.attention_mask)
        else:
            y = x
            for block in blocks:
                y = block(y, mask=batch.attention_mask)
            y = net.head.norm(y)
        (y * probe).sum().backward()
        results.append(
            (
                y * (probe != 0),
                x.grad,
                blocks[0].mlp[0].weight.grad if blocks is net.blocks else blocks[0].linear1.weight.grad,
            )
        )
    for ours, other in zip(*results, strict=True):
        torch.testing.assert_close(ours, other, atol=1e-9, rtol=1e-7)
    plain = net.head.norm(net.encode(batch.input_ids, batch.attention_mask, batch.token_type_ids))
    torch.testing.assert_close(plain * (probe != 0), results[0][0], atol=1e-9, rtol=1e-7)


def test_the_stem_sums_token_position_and_segment():
    torch.manual_seed(0)
    stem, ids, segment = BERTNet(30, 12, **SMALL).stem, torch.tensor([[7, 9, 7]]), torch.tensor([[0, 1, 1]])
    rows = [
        stem.token.weight[t] + stem.position.weight[p] + stem.segment.weight[s]
        for p, (t, s) in enumerate(zip([7, 9, 7], [0, 1, 1], strict=True))
    ]
    torch.testing.assert_close(stem(ids, segment)[0], F.layer_norm(torch.stack(rows), (16,)))


@pytest.mark.parametrize("rotary", [False, True])
def test_no_token_attends_to_padding_and_all_others_attend_to_both_sides(rotary):
    torch.manual_seed(0)
    net, batch = BERTNet(30, 12, **SMALL, rotary=rotary).double(), batch_of()
    for parameter in net.parameters():
        parameter.data = torch.randn_like(parameter)
    mask = batch.attention_mask
    changed = batch.input_ids.where(mask, (batch.input_ids + 11) % 30)
    assert not torch.equal(changed, batch.input_ids)
    (tokens, pair), (others, other) = (net(ids, mask, batch.token_type_ids) for ids in (batch.input_ids, changed))
    torch.testing.assert_close(tokens[mask], others[mask])
    torch.testing.assert_close(pair, other)
    alone = net(batch.input_ids[:1, : mask[0].sum()], None, batch.token_type_ids[:1, : mask[0].sum()])
    torch.testing.assert_close(alone[0][0], tokens[0][mask[0]])
    for position in (0, 5):  # the first and the last that are not padding in any row
        ids = batch.input_ids.clone()
        ids[:, position] = (ids[:, position] + 1) % 30
        difference = (net(ids, mask, batch.token_type_ids)[0] - tokens).abs().amax((0, 2))
        assert (difference[:6] > 1e-6).all()


def test_the_logits_of_positions_with_a_target_equal_those_of_all_positions():
    torch.manual_seed(0)
    net, batch = BERTNet(30, 12, **SMALL), batch_of()
    has_target = batch.labels != -100
    some, every = (net(*batch[:1], *batch[2:4], has_target=mask)[0] for mask in (has_target, None))
    assert some.shape == (has_target.sum(), 30)
    torch.testing.assert_close(some, every[has_target])


def test_the_logits_of_the_pair_come_from_the_token_cls():
    torch.manual_seed(0)
    net, batch = BERTNet(30, 12, **SMALL), batch_of()
    cls = net.head.norm(net.encode(*batch[:1], *batch[2:4]))[:, 0]
    first, _, second = net.head.pair
    torch.testing.assert_close(net(*batch[:1], *batch[2:4])[1], second(torch.tanh(first(cls))))


def test_the_embedding_matrix_is_the_output_matrix_and_the_parameters_are_as_many_as_expected():
    net = BERTNet(512, 131)
    assert net.head.token[-1].weight is net.stem.token.weight
    d, v = 128, 512
    block = 4 * (d * d + d) + 2 * 4 * d * d + 5 * d + 4 * d
    head = 2 * d + (d * d + d) + 2 * d + v + (d * d + d) + (2 * d + 2)
    assert sum(p.numel() for p in net.parameters()) == (v + 131 + 2) * d + 2 * d + 4 * block + head
    assert [name for name, _ in net.named_children()] == ["stem", "blocks", "head"]


def test_more_tokens_than_the_context_are_an_error():
    with pytest.raises(ValueError, match="13 tokens don't fit a context of 12"):
        BERTNet(30, 12, **SMALL)(torch.zeros(1, 13, dtype=torch.int64))


# Training


def test_it_learns_a_batch_by_heart_both_tasks():
    torch.manual_seed(0)
    model, batch, losses = BERT(30, 12, **SMALL), batch_of(rows=8), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(150):
        terms = [F.cross_entropy(*target) for target in model.targets(batch).values()]
        optimizer.zero_grad()
        sum(terms).backward()
        optimizer.step()
        losses.append(max(term.item() for term in terms))
        if losses[-1] < 0.1:
            break
    assert losses[0] > 2
    assert losses[-1] < 0.1, losses[::10]


def test_metrics_are_exact_over_batches_of_unequal_size(text):
    logged, outputs = {}, {}
    for size in (5, 64):
        data = data_of(text, eval_batch_size=size)
        model, trainer = model_of(data).eval(), quiet_trainer()
        logged[size] = trainer.validate(model, datamodule=data, verbose=False)[0]
        with torch.no_grad():
            batch = data.datasets["val"].__getitems__(torch.arange(len(data.datasets["val"])))
            outputs = model.targets(batch)
    tokens, labels = outputs["loss"]
    expected = {
        "loss": F.cross_entropy(tokens, labels),
        "mask_acc": (tokens.argmax(1) == labels).float().mean(),
        "next_acc": (outputs["next_loss"][0].argmax(1) == batch.next_label).float().mean(),
        "next_loss": F.cross_entropy(outputs["next_loss"][0], batch.next_label),
        "top_share": tokens.argmax(1).bincount().max() / len(labels),
        "commonest": labels.bincount().max() / len(labels),
    }
    for size in (5, 64):
        assert logged[size] == pytest.approx(
            {f"val/{name}": value.item() for name, value in expected.items()}, abs=1e-5
        )


def test_metrics_show_a_collapse(text):
    data = data_of(text)
    model = model_of(data)
    healthy = quiet_trainer().validate(model, datamodule=data, verbose=False)[0]
    labels = data.datasets["val"].__getitems__(torch.arange(len(data.datasets["val"]))).labels
    with torch.no_grad():  # now it always predicts the most frequent token
        model.net.head.token[-1].bias[labels[labels >= 0].mode().values] = 1e4
    collapsed = quiet_trainer().validate(model, datamodule=data, verbose=False)[0]
    assert healthy["val/top_share"] < 0.9
    assert collapsed["val/top_share"] == 1
    assert collapsed["val/mask_acc"] == pytest.approx(collapsed["val/commonest"])
    assert collapsed["val/commonest"] == healthy["val/commonest"] < 0.5


def test_top_share_counts_over_all_batches():
    share = TopShare(5)
    share.update(torch.tensor([1, 1, 2]))
    share.update(torch.tensor([2, 2, 2, 4]))
    assert share.compute() == pytest.approx(4 / 7)
    share.reset()
    share.update(torch.tensor([4]))
    assert share.compute() == 1


def test_a_training_resumed_after_an_epoch_of_short_segments_ends_with_the_same_weights(text, tmp_path):
    def fit(seed: int, *callbacks: Callback, **options) -> BERT:
        data = data_of(text, seed=2, batch_size=32, short=4, short_epochs=1)
        model = model_of(data)
        torch.manual_seed(seed)
        trainer = quiet_trainer(max_epochs=2, limit_val_batches=0, callbacks=list(callbacks))
        trainer.fit(model, datamodule=data, **options)
        return model

    def keep(trainer, *_):
        if trainer.current_epoch == 1 and trainer.global_step % trainer.num_training_batches == 1:
            trainer.save_checkpoint(tmp_path / "part.ckpt")

    whole = fit(0, LambdaCallback(on_train_batch_end=keep)).state_dict()
    resumed = fit(1, ckpt_path=tmp_path / "part.ckpt").state_dict()
    part = torch.load(tmp_path / "part.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert not torch.equal(part["net.stem.token.weight"], whole["net.stem.token.weight"])


def test_a_checkpoint_of_another_vocabulary_is_an_error(text, tmp_path):
    data = data_of(text)
    trainer = quiet_trainer(max_steps=1, limit_val_batches=0)
    trainer.fit(model_of(data), datamodule=data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    other = tmp_path / "other.txt"
    other.write_text(text.read_text(encoding="utf-8").replace("king", "queen"), encoding="utf-8")
    data = data_of(other)
    with pytest.raises(ValueError, match="another vocabulary"):
        quiet_trainer().validate(model_of(data), datamodule=data, ckpt_path=tmp_path / "a.ckpt", verbose=False)


def test_a_model_with_a_shorter_context_than_the_data_is_an_error(text):
    data = data_of(text)
    with pytest.raises(ValueError, match="18 at most"):
        quiet_trainer().validate(model_of(data, context=18), datamodule=data, verbose=False)


def test_data_without_pairs_are_an_error():
    with pytest.raises(ValueError, match=r"no next_label: expected pairs of segments; use .*SentencePairs"):
        BERT(30, 12, **SMALL).targets(batch_of()._replace(next_label=None))


# Gallery


def test_the_gallery_shows_the_masked_tokens_and_the_predictions_of_the_model(text, tmp_path):
    data, gallery = data_of(text, eval_batch_size=5), MaskedTokenGallery(7)
    model = model_of(data)
    trainer = quiet_trainer(callbacks=[gallery], default_root_dir=tmp_path)
    trainer.validate(model, datamodule=data, verbose=False)
    with Image.open(tmp_path / "pictures" / "masked_val.png") as image:
        assert min(image.size) > 300
    batch = data.datasets["val"].__getitems__(torch.arange(7))
    with torch.no_grad():
        predictions = model.eval().predict_step(batch, 0).argmax(-1)
    assert [entry.index for entry in gallery.shown] == list(range(7))
    for row, entry in enumerate(gallery.shown):
        pair, positions = entry.item, (batch.labels[row] != -100).nonzero()[:, 0].tolist()
        assert pair.truth == {position: batch.labels[row, position].item() for position in positions}
        assert pair.prediction == {position: predictions[row, position].item() for position in positions}
        assert entry.wrong == (pair.truth != pair.prediction)
        assert torch.equal(pair.tokens, batch.input_ids[row][batch.attention_mask[row]])
        assert pair.tokens.untyped_storage().size() == pair.tokens.nbytes, "the complete batch is not kept"
        assert (pair.border, pair.together) == (
            (batch.token_type_ids[row] == 1).nonzero()[0].item(),
            batch.next_label[row],
        )


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_the_gallery_reads_like_the_text(text, kind):
    data = data_of(text, tokenizer=kind)
    data.setup("fit")
    pairs, at = data.datasets["val"], 3
    first, second = pairs.segments(at)
    batch = pairs.__getitems__(torch.tensor([at]))
    truth = {position: token for position, token in enumerate(batch.labels[0].tolist()) if token != -100}
    border = len(first) + 2
    shown = batch.input_ids[0][batch.attention_mask[0]]
    right = MaskedPair(shown, border=border, together=True, truth=truth, prediction=truth)
    drawn = "".join(piece for piece, _, _ in pieces(right, data.tokenizer)).replace("␣", " ").replace("↵", "\n")
    decoded = [data.tokenizer.decode(part.tolist()) for part in (first, second)]
    assert [part.strip() for part in drawn.split("║")] == [part.strip() for part in decoded]
    position = min(truth)
    wrong = right._replace(prediction=truth | {position: truth[position] + 1})
    (arrow,) = [piece for piece, _, background in pieces(wrong, data.tokenizer) if "→" in piece]
    assert arrow.split("→")[0] in {piece for piece, _, background in pieces(right, data.tokenizer) if background}
