"""Weights of torchvision's nets are put into nets with other names, or refused with what does not fit."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from zoo.parts import pretrained
from zoo.parts.pretrained import load_weights

RENAMES = (("^features", "stem"), ("^classifier", "head"))


class Source(nn.Module):
    """Stands for a net of torchvision."""

    def __init__(self, width: int = 4, num_classes: int = 5) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width))
        self.classifier = nn.Linear(width, num_classes)


class Net(nn.Module):
    def __init__(self, width: int = 4, num_classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(width, num_classes))


HEAD = (*RENAMES, ("^head", "head.1"))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_all_tensors_arrive_also_from_half_precision(tmp_path, suffix, dtype):
    source, net, path = Source(), Net(), tmp_path / f"weights{suffix}"
    nn.init.normal_(source.features[1].running_mean)
    state = {
        name: value.to(dtype) if value.is_floating_point() else value for name, value in source.state_dict().items()
    }
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    load_weights(net, str(path), "source", HEAD)
    for mine, theirs in zip(net.state_dict().values(), state.values(), strict=True):
        assert torch.equal(mine, theirs.to(mine.dtype))


def test_the_head_keeps_its_values_for_another_number_of_classes(tmp_path):
    source, net = Source(num_classes=9), Net(num_classes=2)
    head = net.head[1].weight.clone()
    torch.save(source.state_dict(), tmp_path / "a.pth")
    load_weights(net, str(tmp_path / "a.pth"), "source", HEAD)
    assert torch.equal(net.head[1].weight, head)
    assert torch.equal(net.stem[0].weight, source.features[0].weight)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (Source(width=8).state_dict(), r"\(8, 3, 3, 3\) there and \(4, 3, 3, 3\)"),
        ({"layer1.weight": torch.zeros(3)}, "missing"),
        ({**Source().state_dict(), "further": torch.zeros(2)}, "further"),
        ([1, 2], "list"),
        ({"weights": "a string"}, "dict"),
        ({}, "dict"),
        (None, "truncated"),
    ],
)
def test_what_does_not_fit_is_refused_and_the_net_is_left_as_it_was(tmp_path, content, said):
    net, path = Net(), tmp_path / "a.pth"
    if content is None:
        path.write_bytes(b"no weights at all")
    else:
        torch.save(content, path)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ValueError, match=said):
        load_weights(net, str(path), "source", HEAD)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_file_with_code_in_it_is_refused_and_the_code_does_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    torch.save({"weights": Evil()}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="more than tensors"):
        load_weights(Net(), str(tmp_path / "a.pth"), "source", HEAD)
    assert not (tmp_path / "ran").exists()


def test_names_are_torchvisions_own(monkeypatch):
    """A name reaches torchvision's download; an unknown one, or no network, is told."""
    with pytest.raises(ValueError, match="IMAGENET1K_V1"):
        load_weights(Net(), "NOPE", "resnet18", HEAD)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors"):
        load_weights(Net(), "nowhere.safetensors", "resnet18", HEAD)

    def no_network(*args, **options):
        raise OSError("no network")

    kind = pretrained.torchvision.models.get_model_weights("resnet18")
    monkeypatch.setattr(kind, "get_state_dict", no_network)
    for name in ("DEFAULT", "ResNet18_Weights.IMAGENET1K_V1"):
        with pytest.raises(FileNotFoundError, match="no network"):
            load_weights(Net(), name, "resnet18", HEAD)
