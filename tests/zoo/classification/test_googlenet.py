"""GoogLeNet is torchvision's where that is asked for, has the paper's channels, and its heads work in training only."""

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from helpers import quiet_trainer
from zoo.classification import base
from zoo.classification.googlenet import GoogLeNet, GoogLeNetNet


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    """torchvision's net for seven classes, with weights and statistics that are not those of the start."""
    torch.manual_seed(0)
    net = torchvision.models.googlenet(num_classes=7, aux_logits=True, init_weights=False, transform_input=False)
    net(torch.randn(2, 3, 64, 64))
    return net.eval()


@pytest.fixture(scope="module")
def weights(theirs: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "googlenet.safetensors"
    save_file(theirs.state_dict(), path)
    return str(path)


@pytest.mark.parametrize("size", [(97, 97), (64, 81)])
def test_it_gives_torchvisions_logits_from_torchvisions_weights(theirs, weights, size):
    ours = GoogLeNet(num_classes=7, small_images=False, weights=weights).eval()
    x, maps = torch.randn(2, 3, *size), (torch.randn(2, 512, 6, 6), torch.randn(2, 528, 6, 6))
    heads = ours.net.get_submodule("auxiliary").children()
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-4, rtol=1e-4)
        for head, other, y in zip(heads, (theirs.aux1, theirs.aux2), maps, strict=True):
            torch.testing.assert_close(head(y), other(y), atol=1e-4, rtol=1e-4)


def test_it_changes_the_normalization_as_torchvision_does(theirs, weights, monkeypatch):
    ours = GoogLeNet(num_classes=7, small_images=False, auxiliary=False, transform_input=True, weights=weights).eval()
    monkeypatch.setattr(theirs, "transform_input", True)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-4, rtol=1e-4)


def test_last_layers_start_anew_for_another_number_of_classes(theirs, weights):
    ours = GoogLeNet(num_classes=3, small_images=False, weights=weights)
    assert torch.equal(ours.net.stem[0][0].weight, theirs.conv1.conv.weight)
    assert torch.equal(ours.net.auxiliary[1][3].weight, theirs.aux2.fc1.weight)
    assert [len(logits) for logits in ours(torch.randn(2, 3, 64, 64))[0]] == [3, 3]
    assert [logits.shape for logits in ours(torch.randn(2, 3, 64, 64))] == [(2, 3)] * 3


@pytest.mark.parametrize(
    ("name", "normalized"), [("DEFAULT", True), ("GoogLeNet_Weights.DEFAULT", True), ("a.pth", False)]
)
def test_a_checkpoint_keeps_what_the_weights_implied(tmp_path, monkeypatch, name, normalized):
    monkeypatch.setattr(base, "load_weights", lambda *arguments: None)
    options = {"num_classes": 2, "width": 0.02, "small_images": False}
    model, trainer = GoogLeNet(**options, weights=name).eval(), quiet_trainer()
    model.trainer = trainer
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = GoogLeNet.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True).eval()
    assert loaded.net.transform_input is normalized
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(loaded(x), model(x))
    assert {m.kernel_size for m in loaded.net.stages.modules() if isinstance(m, nn.Conv2d)} == {(1, 1), (3, 3)}


def test_the_papers_form_is_refused_weights_of_torchvisions():
    """5x5 convolutions are not 3x3 ones: without `as_torchvision` a net does not take them by accident."""
    paper, torchvisions = (GoogLeNetNet(as_torchvision=flag, width=0.02).state_dict() for flag in (False, True))
    differ = {name.partition(".branch")[2] for name in paper if paper[name].shape != torchvisions[name].shape}
    assert differ == {"5.1.0.weight"}


@pytest.mark.parametrize(("auxiliary", "published"), [(False, 6_624_904), (True, 13_004_888)])
def test_parameters_are_as_many_as_published(auxiliary, published):
    with torch.device("meta"):
        net = GoogLeNetNet(1000, small_images=False, auxiliary=auxiliary, as_torchvision=True)
        paper = GoogLeNetNet(1000, small_images=False, auxiliary=auxiliary)
    assert count(net) == published
    fives = sum(16 * m.in_channels * m.out_channels for m in paper.modules() if getattr(m, "kernel_size", 0) == (5, 5))
    assert count(paper) == published + fives


def test_it_has_the_channels_of_table_1_and_heads_in_training_only():
    net = GoogLeNetNet(10, width=1.0)
    x = torch.randn(2, 3, 8, 8)
    main, first, second = net(x)
    assert main.shape == first.shape == second.shape == (2, 10)
    assert net.head[-1].in_features == 1024
    assert [head[1][0].in_channels for head in net.auxiliary] == [512, 528]
    assert isinstance(net.eval()(x), torch.Tensor)


def test_the_large_stem_has_the_maps_of_table_1():
    net, sizes = GoogLeNetNet(10, width=0.02, small_images=False, auxiliary=False).eval(), []
    for part in (net.stem, *net.stages):
        part.register_forward_hook(lambda part, inputs, output: sizes.append(output.shape[-1]))
    net(torch.zeros(1, 3, 224, 224))
    assert sizes == [28, 28, 14, 14, 14, 7]


def test_a_factorized_net_has_no_convolution_larger_than_3x3():
    plain, factorized = (GoogLeNetNet(10, width=0.25, factorized=flag) for flag in (False, True))
    sizes = [{m.kernel_size for m in net.stages.modules() if isinstance(m, nn.Conv2d)} for net in (plain, factorized)]
    assert sizes == [{(1, 1), (3, 3), (5, 5)}, {(1, 1), (3, 3)}]
    assert factorized.eval()(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_auxiliary_heads_add_their_share_to_the_loss_of_training():
    model = GoogLeNet(num_classes=4, width=0.02, auxiliary_weight=0.5)
    outputs, label = tuple(torch.randn(3, 6, 4)), torch.tensor([0, 1, 2, 3, 0, 1])
    main, first, second = (nn.functional.cross_entropy(logits, label) for logits in outputs)
    torch.testing.assert_close(model.loss(outputs, label, "train"), main + 0.5 * (first + second))
    torch.testing.assert_close(model.loss(outputs[0], label, "val"), main)
