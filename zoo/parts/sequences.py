"""Names of layers that torchvision keeps in one sequence and the nets here in several, such as a stem and stages."""

from torch import nn

from zoo.parts.pretrained import Renames


def sequence_renames(net: nn.Module, theirs: str, *ours: str, start: int = 0) -> Renames:
    """Renames for `load_weights`, from one sequence of layers to several, one after the other.

    Args:
        net: has the children `ours`.
        theirs: torchvision's name of its sequence, such as "features".
        ours: names of sequences in `net` that together have the same layers in the same order.
        start: index in `theirs` of the first layer in `ours`.

    >>> net = nn.Module()
    >>> net.stem, net.stages = nn.Sequential(nn.Conv2d(3, 8, 3)), nn.Sequential(nn.ReLU(), nn.Conv2d(8, 8, 3))
    >>> sequence_renames(net, "features", "stem", "stages")[-1]
    ('^features\\\\.2\\\\.', 'stages.1.')
    """
    layers = [f"{name}.{i}" for name in ours for i, _ in enumerate(net.get_submodule(name).children())]
    return [(rf"^{theirs}\.{start + i}\.", f"{layer}.") for i, layer in enumerate(layers)]
