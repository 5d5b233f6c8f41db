"""Relevance maps: where in an image a classifier finds the evidence for a class, and how far that can be believed.

B batch, C channels, D channels of a layer, H height, W width. Selvaraju et al. 2017, "Grad-CAM: Visual Explanations
from Deep Networks via Gradient-based Localization", and its relatives, as implemented in the package grad-cam.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytorch_grad_cam
import torch
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.metrics.road import ROADCombined
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget, ClassifierOutputTarget
from torch import Tensor, nn

from callbacks.figures.callback import untouched

METHODS = tuple(
    name
    for name, kind in vars(pytorch_grad_cam).items()
    if isinstance(kind, type) and issubclass(kind, BaseCAM) and name != "FullGrad"  # which takes no target layer
)
ONLY_MAPS = ("AblationCAM", "ShapleyCAM")  # in the package they read the output of a layer without reshaping it
MIN_MAP_SIZE = 5  # cells along a side: a smaller map, stretched over the image, says nothing about where


class CoarseMapsError(ValueError):
    """The maps of a layer are too small to say where something is."""


class Relevance(NamedTuple):
    """The relevance maps of a batch.

    maps: (B, H, W) float32, as large as the images, each stretched to 0..1; 0 everywhere where a map has no evidence.
    layer: name of the module in the net whose output they were computed from.
    size: (height, width) of that output.
    """

    maps: np.ndarray
    layer: str
    size: tuple[int, int]


def relevance(
    module: nn.Module,
    images: Tensor,
    classes: Sequence[int],
    method: str = "GradCAM",
    layer: nn.Module | None = None,
) -> Relevance:
    """Relevance maps of a batch, each the evidence for one class, found in one pass through the net.

    The layers below the target run without a graph, as the maps need the gradients of its output only. Methods without
    gradients need no graph at all, and ShapleyCAM, which differentiates twice, the complete one. Float32 throughout,
    whatever the precision of the run; modes, gradients, hooks and random states are left as they were.

    Args:
        module: a net, or what has one as `net`; with `cam_target`, a module in the net, and, where the output of that
            has another shape than (B, D, H, W), `cam_reshape`, which gives it that shape.
        images: (B, C, H, W), normalized.
        classes: for each image the class whose evidence is shown.
        method: class of the package grad-cam, one of `METHODS`.
        layer: a module in the net, instead of `cam_target`.

    Raises:
        ValueError: if the module does not say which layer to use, the net does not run that layer, its maps are
            smaller than 5x5, or the method cannot reshape tokens to maps.
    """
    net, layer, name = _net_and_layer(module, layer)
    where, reshape = f"{name} of {type(module).__name__}", getattr(module, "cam_reshape", None)
    if reshape and method in ONLY_MAPS:
        raise ValueError(f"{where} gives tokens, not maps, and method is {method}: expected another, such as GradCAM")
    size: list[int] = []
    ran = False

    def begin_graph(layer: nn.Module, inputs: tuple, output: Any) -> Tensor | None:
        """Makes the output of the layer the first tensor of the graph; not again, where the net runs it again."""
        nonlocal ran
        first, ran = not ran, True
        # A copy, as a later layer may write in place, which a leaf does not allow.
        return output.detach().requires_grad_().clone() if cut and first and isinstance(output, Tensor) else None

    def finish(net: nn.Module, inputs: tuple, output: Any) -> None:
        if not ran:
            raise ValueError(f"{where} did not run: expected a layer that the net runs as `cam_target`; choose another")

    def checked(output: Any) -> Tensor:
        maps = reshape(output) if reshape else output
        shape = tuple(getattr(maps, "shape", ()))
        if len(shape) != 4 or min(shape[2:]) < MIN_MAP_SIZE:
            raise (CoarseMapsError if len(shape) == 4 else ValueError)(
                f"{where} gives maps of {shape or type(maps).__name__}: expected (B, D, H, W) "
                f"with H and W of {MIN_MAP_SIZE} or more; choose an earlier layer as `cam_target`"
                + (" or give a `cam_reshape`" if len(shape) != 4 else "")
            )
        size[:] = shape[2:]
        return maps.float().clone()  # NumPy has no bfloat16, and a later layer may write in place

    weight, children = next(net.parameters()), [(part, dict(part.named_children())) for part in net.modules()]
    # Evaluation runs in inference mode, without gradients; tensors made in it have to be cloned outside it.
    with (
        torch.inference_mode(False),
        untouched(net),
        torch.enable_grad(),
        torch.autocast(weight.device.type, enabled=False),
    ):
        net.requires_grad_(False)  # as the images carry no gradient either, the graph begins at the layer
        cam = getattr(pytorch_grad_cam, method)(net, [layer], reshape_transform=checked)
        cut = cam.uses_gradients and not cam.compute_input_gradient
        hooks = [layer.register_forward_hook(begin_graph, prepend=True), net.register_forward_hook(finish)]
        try:  # `with cam` would swallow every IndexError
            maps = cam(images.clone().to(weight), [ClassifierOutputTarget(label) for label in classes])
        finally:
            cam.activations_and_grads.release()
            for hook in hooks:
                hook.remove()
            for part, named in children:  # AblationCAM puts another layer into the net, and leaves it after an error
                for child_name, child in named.items():
                    setattr(part, child_name, child)
    return Relevance(maps, name, (size[0], size[1]))


def usable_layer(module: nn.Module, image: Tensor, method: str = "GradCAM") -> nn.Module | None:
    """The layer whose maps are large enough for images of a size: `cam_target`, or the last stage before it that is.

    The arguments are as for `relevance`.

    Returns:
        None where it is `cam_target`.

    Raises:
        ValueError: see `relevance`.
    """
    target, stages = getattr(module, "cam_target", None), getattr(getattr(module, "net", module), "stages", None)
    known = list(stages) if isinstance(stages, nn.Sequential) else []
    place = next((i for i, stage in enumerate(known) if stage is target), 0)
    refusal: CoarseMapsError | None = None
    for layer in (None, *reversed(known[:place])):
        try:
            relevance(module, image, [0], method, layer)
        except CoarseMapsError as error:
            refusal = refusal or error
        else:
            return layer
    assert refusal is not None
    raise refusal


def _net_and_layer(module: nn.Module, layer: nn.Module | None = None) -> tuple[nn.Module, nn.Module, str]:
    """The net, the layer whose output the maps are computed from, and the name of that in the net."""
    net, layer = getattr(module, "net", module), layer or getattr(module, "cam_target", None)
    if not isinstance(net, nn.Module) or not isinstance(layer, nn.Module):
        raise ValueError(
            f"{type(module).__name__} does not say which layer to use: expected an attribute or property "
            "`cam_target`, a module inside `self.net`; add it, or leave out GradCAMGallery"
        )
    return net, layer, next((name for name, part in net.named_modules() if part is layer), type(layer).__name__)


def road(module: nn.Module, images: Tensor, classes: Sequence[int], maps: np.ndarray) -> np.ndarray:
    """How faithful maps are to the net: ROAD, "remove and debias" (Rong et al. 2022, section 4).

    The most relevant 10 % to 90 % of the pixels are replaced by noisy averages of their neighbors, then the least
    relevant; the score is half the difference of what is left of the class's probability, averaged over the shares.
    Random maps have 0 on average, better ones more. Pixels of equal relevance are ranked at random, as the package
    would remove all of them at once.

    Args:
        module, images, classes: as in `relevance`.
        maps: (B, H, W).

    Returns:
        (B,) float32, -0.5 to 0.5.
    """
    net = getattr(module, "net", module)
    weight, draw = next(net.parameters()), np.random.default_rng(0)
    pixels = maps.reshape(len(maps), -1)
    order = np.lexsort((draw.random(pixels.shape), pixels))  # along each row, by relevance, then at random
    ranks = np.empty_like(pixels, dtype=np.float32)
    np.put_along_axis(ranks, order, np.linspace(0, 1, pixels.shape[1], dtype=np.float32)[None], axis=1)
    targets = [ClassifierOutputSoftmaxTarget(label) for label in classes]
    with torch.inference_mode(False), untouched(net), torch.autocast(weight.device.type, enabled=False):
        torch.manual_seed(0)
        images = images.clone().to(weight)
        return ROADCombined()(images, ranks.reshape(maps.shape), targets, net.eval())
