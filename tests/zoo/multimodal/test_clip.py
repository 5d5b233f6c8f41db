"""CLIP's loss equals a loop over pairs, also over two processes; its encoders ignore padding; its metrics are exact."""

import math
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import processes
from datamodules.batches import Paired
from datamodules.captions.base import encode_sentences
from datamodules.captions.drawn import Captions
from helpers import quiet_trainer
from zoo.multimodal.clip import CLIP, INITIAL_SCALE, MAX_SCALE, CLIPNet, Recall, contrastive_loss
from zoo.parts.optim.schedules import Constant

TINY = {"dim": 16, "widths": (4, 8), "text_width": 16, "text_depth": 1, "text_heads": 2}
squares = st.integers(1, 6).flatmap(
    lambda n: st.tuples(st.just(n), st.integers(0, 2**31), st.lists(st.integers(0, 3), min_size=n, max_size=n))
)


def data(**options) -> Captions:
    few = {"train_size": 24, "val_size": 10, "test_size": 11, "size": 32, "batch_size": 8, "eval_batch_size": 4}
    return Captions(**few | options)


def tiny(vocab_size: int = 45, **options) -> CLIP:
    torch.manual_seed(0)
    return CLIP(vocab_size, **TINY | options)


def a_batch(n: int = 6, tokens: int = 7, vocab_size: int = 45) -> Paired:
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(3, vocab_size, (n, tokens), generator=draw)
    mask = torch.arange(tokens) < torch.randint(1, tokens + 1, (n, 1), generator=draw)
    return Paired(torch.randn(n, 3, 32, 32, generator=draw), ids * mask, mask, torch.arange(n))


# The loss


def by_hand(logits: Tensor, label: list[int]) -> Tensor:
    """The divergence of the probabilities from the shared target, over all images, then over all texts."""
    n, total = len(label), 0.0
    for square in (logits, logits.T):
        for i in range(n):
            right = [j for j in range(n) if label[j] == label[i]]
            denominator = sum(square[i, j].exp() for j in range(n))
            for j in right:
                total = total - (square[i, j].exp() / denominator * len(right)).log() / len(right) / n / 2
    return total


@given(squares)
@settings(deadline=None, max_examples=40)
def test_the_loss_and_its_gradient_equal_a_loop_over_all_pairs(square):
    n, seed, label = square
    draw = torch.Generator().manual_seed(seed)
    logits = (3 * torch.randn(n, n, generator=draw)).requires_grad_()
    found, wanted = contrastive_loss(logits, torch.tensor(label)), by_hand(logits.double(), label)
    torch.testing.assert_close(found, wanted.float(), atol=1e-5, rtol=1e-4)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (found, wanted)]
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)


def test_if_all_labels_differ_it_is_the_papers_loss():
    logits, order = torch.randn(5, 5, generator=torch.Generator().manual_seed(0)), torch.arange(5)
    papers = (F.cross_entropy(logits, order) + F.cross_entropy(logits.T, order)) / 2
    torch.testing.assert_close(contrastive_loss(logits), papers)
    torch.testing.assert_close(contrastive_loss(logits, order.flip(0)), papers)


def test_the_loss_is_invariant_to_swapped_modalities_and_to_the_order_of_pairs():
    logits, order = torch.randn(7, 7, generator=torch.Generator().manual_seed(0)), torch.randperm(7)
    label = torch.tensor([0, 1, 1, 2, 3, 0, 4])
    loss = contrastive_loss(logits, label)
    torch.testing.assert_close(contrastive_loss(logits.T, label), loss)
    torch.testing.assert_close(contrastive_loss(logits[order][:, order], label[order]), loss)
    assert not torch.isclose(contrastive_loss(logits), loss)


def test_perfect_similarities_have_loss_0_also_if_pairs_are_equal():
    label = torch.tensor([0, 1, 1, 2])
    logits = 50.0 * (label[:, None] == label)
    assert contrastive_loss(logits, label).item() == pytest.approx(0, abs=1e-6)
    assert contrastive_loss(logits).item() == pytest.approx(math.log(2) / 2, abs=1e-4)


def test_the_loss_is_float32_under_half_precision():
    logits = torch.randn(4, 4).bfloat16()
    assert contrastive_loss(logits).dtype == torch.float32


# The net


def test_embeddings_have_length_one_and_the_logits_are_their_scaled_cosines():
    net, batch = tiny().net.eval(), a_batch()
    image, text = net.encode_image(batch.image), net.encode_text(batch.input_ids, batch.attention_mask)
    for embedding in (image, text):
        assert embedding.shape == (6, 16)
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(6))
    logits = net(*batch[:3])
    torch.testing.assert_close(logits, INITIAL_SCALE * image @ text.T)


def test_similarities_are_float32_under_autocast():
    net, batch = tiny().net.eval(), a_batch()
    image, text = net.encode_image(batch.image), net.encode_text(*batch[1:3])
    with torch.autocast("cpu", torch.bfloat16):
        found = net.similarity(image, text)
        assert net(*batch[:3]).dtype == torch.float32
    torch.testing.assert_close(found, INITIAL_SCALE * image @ text.T)  # to more digits than bfloat16 has


def test_the_logits_follow_the_order_of_the_pairs():
    net, batch, order = tiny().net.eval(), a_batch(), torch.tensor([3, 0, 5, 1, 4, 2])
    with torch.no_grad():
        logits, mixed = (net(*b[:3]) for b in (batch, Paired(*(column[order] for column in batch))))
    torch.testing.assert_close(mixed, logits[order][:, order], atol=1e-5, rtol=1e-5)


def as_trained(net: CLIPNet) -> CLIPNet:
    """With residual branches that are not zero."""
    for parameter in net.text.blocks.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
    return net


def test_the_text_encoder_starts_as_a_bag_of_words():
    text = tiny().net.text.eval()
    some, whole = torch.tensor([[3, 4, 5], [5, 3, 4], [3, 4, 6]]), torch.ones(3, 3, dtype=torch.bool)
    first, mixed, other = text(some, whole)
    torch.testing.assert_close(first, mixed)
    assert (first - other).norm() > 1e-3


def test_padding_does_not_matter_but_words_and_their_order_do():
    text, batch = as_trained(tiny().net).text.eval(), a_batch()
    ids, mask = batch.input_ids, batch.attention_mask
    with torch.no_grad():
        found = text(ids, mask)
        more = text(F.pad(ids, (0, 5), value=0), F.pad(mask, (0, 5), value=False))
        other = text(torch.where(mask, ids, 9), mask)
        alone = torch.cat([text(row[m][None], m[m][None]) for row, m in zip(ids, mask, strict=True)])
        first = text(torch.where(torch.arange(7) == 0, (ids + 1) % 45, ids), mask)
    for same in (more, other, alone):
        torch.testing.assert_close(same, found, atol=1e-5, rtol=1e-4)
    assert ((first - found).norm(dim=1) > 1e-3).all()
    swapped, whole = torch.tensor([[4, 3, 5]]), torch.ones(1, 3, dtype=torch.bool)
    assert (text(swapped, whole) - text(torch.tensor([[3, 4, 5]]), whole)).norm() > 1e-3


def test_an_image_is_stem_stages_and_head_and_the_net_has_no_lightning_in_it():
    model = tiny()
    assert [name for name, _ in model.net.image.named_children()] == ["stem", "stages", "head"]
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"net"}
    assert any(module is model.cam_target for module in model.net.modules())
    assert not any(type(module).__module__.startswith("lightning") for module in model.net.modules())


# Retrieval


def test_recall_counts_sentences_with_a_right_image_among_the_k_most_similar():
    image = F.normalize(torch.tensor([[1.0, 0], [0.9, 0.1], [0, 1]]), dim=1)
    text = image[[1, 1, 2]]
    for k, label, wanted in ((1, [0, 1, 2], 2 / 3), (2, [0, 1, 2], 1.0), (1, [0, 0, 2], 1.0), (9, [0, 1, 2], 1.0)):
        recall = Recall(k)
        for i in range(3):  # in batches of one
            recall.update(image[i : i + 1], text[i : i + 1], torch.tensor(label[i : i + 1]))
        assert recall.compute() == pytest.approx(wanted), (k, label)


def test_rank_puts_the_most_similar_image_first_and_returns_its_cosine():
    model, batch = tiny().eval(), a_batch()
    order, cosine = model.rank(*batch[:3])
    similar = (model(*batch[:3]) / INITIAL_SCALE).T
    assert order.shape == cosine.shape == (6, 6)
    assert torch.equal(order[:, 0], similar.argmax(1))
    torch.testing.assert_close(cosine, similar.gather(1, order))
    assert (cosine.diff(dim=1) <= 0).all()


# Training


def test_evaluation_logs_the_zero_shot_accuracy_that_is_computed_by_hand():
    model, pairs = tiny(), data(new=4)
    (logged,) = quiet_trainer().test(model, datamodule=pairs, verbose=False)
    assert logged.keys() == {f"test/{name}" for name in ("loss", "acc", "acc_new", "recall_1", "recall_5")}
    columns, model = pairs.datasets["test"].columns, model.eval()
    image = pairs.normalize(columns.image / 255)
    right = []
    for sentences in pairs.phrased("test"):  # each phrasing by itself
        with torch.no_grad():
            right.append(model(image, *encode_sentences(pairs.tokenizer, sentences)).argmax(1) == columns.label)
    right = torch.stack(right, 1).float()
    new = torch.tensor([label in pairs.new_classes for label in columns.label.tolist()])
    assert 0 < new.sum() < len(new)
    assert logged["test/acc"] == pytest.approx(right.mean().item())
    assert logged["test/acc_new"] == pytest.approx(right[new].mean().item())


def test_pairs_of_equal_label_share_their_target_unless_it_is_disabled():
    batch = a_batch()._replace(label=torch.tensor([0, 0, 1, 2, 2, 2]))
    losses = []
    for share in (True, False):
        model = tiny(share_targets=share).eval()
        model.log, model.all_gather = lambda *args, **options: None, lambda x, **options: x  # as of one process
        losses.append(model.training_step(batch, 0)["loss"])
        label = batch.label if share else None
        torch.testing.assert_close(losses[-1], contrastive_loss(model(*batch[:3]), label))
    assert not torch.isclose(*losses)


def test_the_temperature_never_goes_below_a_hundredth():
    model = tiny(optimizer=partial(torch.optim.SGD, lr=0.0), schedule=Constant)
    assert model.net.log_scale.exp().item() == pytest.approx(INITIAL_SCALE)
    with torch.no_grad():
        model.net.log_scale.fill_(9.0)
    quiet_trainer(max_steps=1, limit_val_batches=0).fit(model, datamodule=data())
    assert model.net.log_scale.exp().item() == pytest.approx(MAX_SCALE)
    assert "net.log_scale" in dict(model.named_parameters())


def test_a_net_with_another_vocabulary_refuses_the_checkpoint(tmp_path):
    trainer = quiet_trainer(max_steps=1, limit_val_batches=0)
    trainer.fit(tiny(), datamodule=data())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    fewer = data(colors=("red", "blue"))
    with pytest.raises(ValueError, match=r"net\.text\.embed\.weight is \(45, 16\) there and \(39, 16\) here"):
        quiet_trainer().validate(tiny(39), datamodule=fewer, ckpt_path=tmp_path / "a.ckpt", verbose=False)


# Two processes


def gradients(folder: Path, devices: int) -> None:
    """Saves the gradient of the first step on `devices` processes, each with its share of the batch."""
    several = {"devices": devices, "strategy": "ddp_notebook"} if devices > 1 else {}
    model = tiny(optimizer=partial(torch.optim.SGD, lr=1.0), schedule=Constant).eval()
    before = [p.detach().clone() for p in model.net.parameters()]
    trainer = quiet_trainer(max_steps=1, limit_val_batches=0, **several)
    model.on_train_batch_start = lambda *_: model.net.eval() and None  # batch norm would see other batches on each rank
    model.on_train_end = lambda: torch.save(
        [b - p.detach() for b, p in zip(before, model.net.parameters(), strict=True)], folder / f"{devices}.pt"
    )
    trainer.fit(model, datamodule=data(batch_size=8 // devices, train_size=16, seed=0))


def test_two_processes_take_the_step_of_one_with_the_whole_batch(tmp_path):
    gradients(tmp_path, 1)
    processes.run(__file__, tmp_path)
    one, two = (torch.load(tmp_path / f"{devices}.pt") for devices in (1, 2))
    assert max(part.abs().max() for part in one) > 0.01
    for alone, together in zip(one, two, strict=True):
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-3)


def test_the_net_works_without_the_system():
    net = CLIPNet(vocab_size=45, in_channels=3, **TINY)
    assert net(*a_batch()[:3]).shape == (6, 6)


if __name__ == "__main__":
    gradients(Path(sys.argv[1]), devices=2)
