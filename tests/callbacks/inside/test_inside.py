"""Filters and maps, attention maps, embeddings, and what a transformer passes on: right, and without a trace."""

import json
import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import normalized_mutual_info_score
from torch import nn

from callback_runs import data, model
from callbacks.figures.embeddings import draw_embeddings
from callbacks.galleries.kernels import KernelGallery, kernel_figure, kernel_image, signed
from callbacks.galleries.transformed import TransformedGallery
from callbacks.galleries.two_inputs import TwoInputsGallery
from callbacks.monitors.attention_maps import (
    AttentionMaps,
    AttentionWeights,
    as_maps,
    attention_weights,
    rollout,
    softmax_weights,
)
from callbacks.monitors.embeddings import Embeddings, cluster, last_layer, pooled, project
from cases import NoisePairs
from helpers import Synthetic, fingerprint_of_global_randomness
from zoo.classification.cct import CCT
from zoo.classification.spatial_transformer import SpatialTransformer
from zoo.classification.two_inputs import TwoInputs
from zoo.classification.vit import ViT

SMALL_VIT = {"image_size": 28, "in_channels": 1, "patch_size": 7, "dim": 16, "num_layers": 3, "num_heads": 2}


def vit() -> ViT:
    torch.manual_seed(0)
    module = ViT(**SMALL_VIT)
    for parameter in module.net.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


@pytest.fixture
def said(caplog):
    """A function that runs something and returns its lines that nothing is drawn."""

    def run(function) -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            function()
        return [message for message in caplog.messages if "draws nothing" in message]

    return run


# Filters


def test_maps_are_those_of_the_convolution_and_the_strongest_filters_are_shown(trainer, published, assert_legible):
    module, gallery = model(), KernelGallery(2, kernels=3)
    samples = data()
    weights = module.net.stem[0].weight
    trainer(gallery).test(module, datamodule=samples, verbose=False)
    (found,) = published
    assert found.name == "kernels_test"
    assert_legible(found.figure)
    strongest = sorted(weights.flatten(1).norm(dim=1).topk(3).indices.tolist())
    image = samples.normalize(samples.samples_of("test", [0, 1]).image / 255)
    maps = F.conv2d(image, weights, module.net.stem[0].bias, 2, 1).detach().numpy()
    drawn = [axes.images[0].get_array() for axes in found.figure.axes]
    assert len(drawn) == 3 + 2 * (1 + 3)
    for place, o in enumerate(strongest):
        np.testing.assert_allclose(drawn[place], signed(weights[o, 0].detach().numpy()), atol=1e-6)
        np.testing.assert_allclose(drawn[3 + 1 + place], signed(maps[0, o]), atol=1e-4)
        np.testing.assert_allclose(drawn[3 + 4 + 1 + place], signed(maps[1, o]), atol=1e-4)


def test_filters_on_three_channels_are_in_color_and_zero_is_white():
    kernel = np.zeros((3, 2, 2))
    kernel[0, 0, 0], kernel[2, 1, 1] = 2.0, -1.0
    np.testing.assert_allclose(kernel_image(kernel)[0, 0], [1, 0.5, 0.5])
    np.testing.assert_allclose(kernel_image(kernel)[1, 1], [0.5, 0.5, 0.25])
    assert signed(np.array([[0.0, 1.0]]))[0, 0] == pytest.approx([1, 1, 1], abs=0.04)
    red, blue = signed(np.array([[1.0, -1.0]]))[0]
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    figure = kernel_figure(np.zeros((4, 8, 3, 3)), np.zeros((1, 4, 5, 5)), [np.zeros((9, 9, 3))], "title")
    assert len(figure.axes) == 4 + 1 + 4


def test_looking_at_maps_leaves_no_trace(trainer):
    module, before = model(), fingerprint_of_global_randomness()
    trainer(KernelGallery(20), limit_test_batches=1).test(module, datamodule=data(), verbose=False)
    assert not module.net.stem[0]._forward_hooks
    assert fingerprint_of_global_randomness() == before


def test_maps_of_a_net_with_two_inputs_are_shown_too(trainer, published):
    samples = NoisePairs(val_size=9, batch_size=4, eval_batch_size=4)
    trainer(KernelGallery(6)).test(TwoInputs(), datamodule=samples, verbose=False)  # of two batches
    assert len(published[0].figure.axes) == 16 + 6 * 17


def test_at_the_end_of_fit_the_first_images_of_validation_are_shown(trainer, published):
    trainer(KernelGallery(1), num_sanity_val_steps=2).fit(model(), datamodule=data())
    assert [one.name for one in published] == ["kernels_val"]


def test_a_net_without_that_convolution_is_told_in_one_line(trainer, published, said):
    (line,) = said(lambda: trainer(KernelGallery(layer="stem.9")).test(model(), datamodule=data(), verbose=False))
    assert "PlainConv has no convolution 'stem.9': expected one of stem.0, stages.0.0" in line
    assert not published
    with pytest.raises(ValueError, match="n is 0 and kernels 16: expected 1 or more"):
        KernelGallery(0)


# Attention


@pytest.mark.parametrize("masked", [None, "bool", "float", "causal"])
def test_weights_are_those_that_torch_weighs_values_by(masked):
    draw = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 2, 5, 4, generator=draw)
    mask = torch.rand(5, 5, generator=draw) < 0.6
    mask[0] = True
    options = {
        None: {},
        "bool": {"attn_mask": mask},
        "float": {"attn_mask": mask.float()},
        "causal": {"is_causal": True},
    }
    with AttentionWeights() as weights:
        found = F.scaled_dot_product_attention(query, key, value, **options[masked], scale=0.7)
    torch.testing.assert_close(weights.found[0] @ value, found)
    assert softmax_weights(query, key, value, torch.zeros(5, 5, dtype=torch.bool)).sum() == 0  # nothing to attend to


@pytest.mark.parametrize("training", [True, False])
def test_torchs_own_attention_is_seen_and_its_results_stay_the_same(training):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).train(training)
    x = torch.randn(3, 5, 8)
    with torch.no_grad():
        expected, alone = layer(x), layer.self_attn(x, x, x, average_attn_weights=False)[1]
        with AttentionWeights() as weights:
            found, averaged = layer(x), layer.self_attn(x, x, x)[1]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(averaged, alone.mean(1))
    first = layer.self_attn(x, x, x, average_attn_weights=False)[1] if not layer.norm_first else None
    torch.testing.assert_close(weights.found[0], first)


def test_the_layers_of_a_vit_give_one_each():
    module, images = vit(), torch.randn(2, 1, 28, 28)
    found = attention_weights(module.net, images)
    assert [each.shape for each in found] == [(2, 2, 17, 17)] * 3
    block = module.net.blocks[0]
    x = block.norm1(module.net.stem(images))
    query, key = (f(x).unflatten(-1, (2, -1)).transpose(1, 2) for f in (block.attention.query, block.attention.key))
    torch.testing.assert_close(found[0], (query @ key.mT / 8**0.5).softmax(-1))


def test_rollout_multiplies_layers_with_their_shortcuts():
    draw = torch.Generator().manual_seed(0)
    weights = [torch.rand(2, 3, 4, 4, generator=draw) for _ in range(3)]
    weights = [each / each.sum(-1, keepdim=True) for each in weights]
    found = rollout(weights)
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 4))
    expected = torch.eye(4)
    for each in weights:
        matrix = each[1].mean(0) + torch.eye(4)
        expected = matrix / matrix.sum(-1, keepdim=True) @ expected
    torch.testing.assert_close(found[1], expected)


def test_maps_are_seen_from_the_class_token_else_from_all_tokens():
    module = vit()
    module(torch.zeros(1, 1, 28, 28))
    attention = torch.rand(1, 17, 17)
    torch.testing.assert_close(as_maps(attention, module.net), attention[:, 0, 1:].unflatten(1, (4, 4)))

    class Pooling:
        @staticmethod
        def cam_reshape(tokens):
            return tokens.transpose(1, 2).unflatten(2, (2, 2))

    attention = torch.rand(1, 4, 4)
    torch.testing.assert_close(as_maps(attention, Pooling), attention.mean(1).unflatten(1, (2, 2)))


@pytest.mark.parametrize("kind", ["vit", "cct"])
def test_attention_is_drawn_beside_the_image(kind, trainer, published, assert_legible):
    module = vit() if kind == "vit" else CCT(num_layers=2, num_heads=2, dim=16)
    shape = (1, 28, 28) if kind == "vit" else (3, 32, 32)
    samples = Synthetic((8, 8, 8), shape, batch_size=8)
    trainer(AttentionMaps(3)).test(module, datamodule=samples, verbose=False)
    (found,) = published
    assert found.name == "attention_test"
    assert len(found.figure.axes) == 9
    assert_legible(found.figure)
    assert len(found.table[1]) == 3


def test_a_net_without_attention_is_told_in_one_line(trainer, published, said):
    (line,) = said(lambda: trainer(AttentionMaps(3)).test(model(), datamodule=data(), verbose=False))
    assert "PlainConv: torch computes no self-attention in it: expected a net that calls" in line
    assert not published


# Embeddings


def test_the_last_layer_is_found_and_its_inputs_are_averaged_over_places():
    net = model().net
    assert last_layer(net, 10) is net.head[0]
    assert last_layer(net, 11) is None
    assert last_layer(net, 10, "stem.0") is net.stem[0]
    maps = torch.rand(2, 3, 4, 5)
    torch.testing.assert_close(pooled(maps), F.normalize(maps.mean((2, 3)), dim=1))


def test_clusters_of_separate_classes_are_the_classes():
    draw = np.random.default_rng(0)
    labels = np.arange(60) % 3
    embeddings = np.eye(3)[labels] + 0.05 * draw.standard_normal((60, 3))
    assert normalized_mutual_info_score(labels, cluster(embeddings, 3)) == pytest.approx(1)
    assert np.array_equal(project(embeddings), project(embeddings))
    assert project(embeddings[:9]) is None
    assert len(set(cluster(np.zeros((20, 3)), 5))) == 1  # no more clusters than there are places


def test_nmi_is_logged_and_written_down_and_nothing_is_left(trainer, published, tmp_path, assert_legible):
    module, samples, callback = (
        model(),
        Synthetic((32, 8, 60), (1, 28, 28), batch_size=8, eval_batch_size=7),
        Embeddings(),
    )
    before = fingerprint_of_global_randomness()
    (logged,) = trainer(callback).test(module, datamodule=samples, verbose=False)
    assert fingerprint_of_global_randomness() == before
    assert not module.net.head[0]._forward_pre_hooks
    images = samples.normalize(samples.samples_of("test", range(60)).image / 255)
    embeddings = pooled(module.net.stages(module.net.stem(images))).detach().numpy()
    labels = samples.datasets["test"].labels.numpy()
    assert logged["test/nmi"] == pytest.approx(normalized_mutual_info_score(labels, cluster(embeddings, 10)), abs=1e-5)
    (found,) = published
    assert_legible(found.figure)
    content = json.loads((callback.folder.parent / "items" / "embeddings_test.json").read_text())
    assert np.sum(content["clusters"], 1).tolist() == np.bincount(labels, minlength=10).tolist()
    assert len(content["places"]) == 60
    assert content["nmi"] == pytest.approx(logged["test/nmi"], abs=1e-6)


def test_with_further_views_the_image_itself_is_embedded(trainer):
    samples = Synthetic((32, 8, 40), (1, 28, 28), batch_size=8)
    plain, views = model(), model()
    views.flip_tta = True
    logged = [trainer(Embeddings()).test(m, datamodule=samples, verbose=False)[0]["test/nmi"] for m in (plain, views)]
    assert logged[0] == logged[1]


def test_in_fit_it_is_done_as_often_as_asked(trainer, published):
    samples = Synthetic((16, 30, 8), (1, 28, 28), batch_size=8)
    run = trainer(Embeddings(every_n_epochs=2), max_epochs=3, num_sanity_val_steps=1)
    run.fit(model(), datamodule=samples)
    assert [one.name for one in published] == ["embeddings_val"]
    assert "val/nmi" in run.callback_metrics


def test_a_last_layer_that_is_not_found_is_told_in_one_line(trainer, published, said):
    run = trainer(Embeddings(layer="tail"))
    (line,) = said(lambda: run.test(model(), datamodule=data(), verbose=False))
    assert "PlainConv lacks a layer 'tail', whose inputs are the embeddings" in line
    assert not published
    with pytest.raises(ValueError, match="points is 3: expected 10 or more"):
        Embeddings(points=3)


def test_many_classes_are_told_apart_without_names(assert_legible):
    draw = np.random.default_rng(0)
    labels = np.arange(200) % 40
    figure = draw_embeddings(draw.random((200, 2)), labels, labels > 38, list(map(str, range(40))), "title", "below")
    assert_legible(figure)
    assert not figure.axes[0].texts


# Transformer and two inputs


def test_what_the_transformer_passes_on_is_shown_with_where_it_looks(trainer, published, assert_legible):
    module = SpatialTransformer(transform="attention")
    with torch.no_grad():
        module.net.transformer.regression[-1].bias.copy_(torch.tensor([-0.5, 0.25, 0.0]))
    samples = data()
    trainer(TransformedGallery(4)).test(module, datamodule=samples, verbose=False)
    (found,) = published
    assert found.name == "transformed_test"
    assert_legible(found.figure)
    assert len(found.figure.axes) == 8
    outline = found.figure.axes[0].lines[0].get_xydata()
    middle, half = np.array([14 * 1.25, 14.0]) - 0.5, 7.0
    np.testing.assert_allclose(outline[0], middle - half, atol=1e-3)
    np.testing.assert_allclose(outline[2], middle + half, atol=1e-3)
    image = samples.normalize(samples.samples_of("test", [0]).image / 255)
    passed = samples.denormalize(module.net.transformer.eval()(image))[0, 0].detach().numpy()
    np.testing.assert_allclose(found.figure.axes[1].images[0].get_array()[..., 0], passed, atol=1e-4)


@pytest.mark.parametrize("control", [True, False])
def test_a_net_without_a_transformer_is_told_in_one_line(control, trainer, published, said):
    module = SpatialTransformer(transformer=False) if control else model()
    (line,) = said(lambda: trainer(TransformedGallery(4)).test(module, datamodule=data(), verbose=False))
    assert ("passes images on as they are" if control else "transformer of PlainConv does not exist") in line
    assert not published


def test_pairs_with_a_wrong_digit_or_sum_are_shown(trainer, published, texts_of, assert_legible):
    torch.manual_seed(0)
    samples, gallery = NoisePairs(val_size=9, batch_size=4, eval_batch_size=4), TwoInputsGallery(4)
    module = TwoInputs()
    (logged,) = trainer(gallery).test(module, datamodule=samples, verbose=False)
    assert gallery.mistakes == round((1 - logged["test/both_acc"]) * 9) > 3
    losses = [entry.item.loss for entry in gallery.shown]
    assert losses == sorted(losses, reverse=True)
    first = gallery.shown[0]
    pair = samples.datasets["test"][first.index]
    assert first.item.truth == (pair.label, pair.addend, pair.total)
    (found,) = published
    assert_legible(found.figure)
    assert "{} + {} = {}".format(*first.item.truth) in texts_of(found.figure)
    content = json.loads((gallery.folder.parent / "items" / "sums_test.json").read_text())
    assert [item["right"] for item in content["items"]] == [False] * 4
