"""The loss that L-BFGS reaches on generation/style-transfer in 500 steps, from an independent implementation.

    python -m experiments.benchmarks.style_reference

The recipe's loss is computed in another way: hooks on torchvision's net instead of a loop over layers, Gram matrices by
einsum, torch's L-BFGS with a line search in a bare loop instead of Lightning. Only the settings and the two images are
the recipe's. This image is not kept within 0..1 as the recipe's is, which makes the problem easier; the loss of the
image clipped to 0..1 is printed too. The recipe's target is 1.1 times the loss.
"""

import time

import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor

from datamodules.images.single_image import ImagePair
from datamodules.io import data_dir
from zoo.command import recipes

RECIPE, STEPS, EVERY = "generation/style-transfer", 500, 50
LAYERS = {"relu1_1": 1, "relu2_1": 6, "relu3_1": 11, "relu4_1": 18}  # among vgg16().features
MEAN, STD = (0.48235, 0.45882, 0.40784), 1 / 255  # of the weights, see their metadata


def features_by_hooks(weights: str) -> tuple[torch.nn.Module, dict[str, Tensor]]:
    """VGG16 up to the last of LAYERS, and the dict in which its outputs appear."""
    net = torchvision.models.vgg16(weights=None).features[: max(LAYERS.values()) + 1].requires_grad_(False)
    state = {name.removeprefix("features."): value.float() for name, value in load_file(data_dir() / weights).items()}
    net.load_state_dict({name: state[name] for name in net.state_dict()})
    seen = {}
    for name, place in LAYERS.items():
        net[place].register_forward_hook(lambda module, inputs, output, name=name: seen.update({name: output}))
    return net, seen


def main() -> None:
    content = recipes.read(recipes.find(RECIPE))
    model, data = content["model"]["init_args"], ImagePair(**content["data"]["init_args"])
    data.setup("fit")
    net, seen = features_by_hooks(model["weights"])

    def look(image: Tensor) -> dict[str, Tensor]:
        net((image - torch.tensor(MEAN)[:, None, None]) / STD)
        return dict(seen)

    def gram(maps: Tensor) -> Tensor:
        return torch.einsum("chw,dhw->cd", maps[0], maps[0]) / maps[0, 0].numel()

    content_image, style_image = data.images
    if style_image is None:
        raise ValueError(f"{RECIPE} has no style image: expected data.style in the recipe")
    contents = look(content_image)
    styles = {name: gram(maps) for name, maps in look(style_image).items()}

    def loss_of(image: Tensor) -> Tensor:
        maps, loss = look(image), torch.zeros(())
        for name, weight in model["content_layers"].items():
            target = contents[name]
            loss = loss + weight * ((maps[name] - target) ** 2).sum() / (target**2).sum()
        for name, weight in model["style_layers"].items():
            error = ((gram(maps[name]) - styles[name]) ** 2).sum() / (styles[name] ** 2).sum()
            loss = loss + model["balance"] * weight * error
        return loss

    image = content_image.clone(memory_format=torch.contiguous_format).requires_grad_()  # as L-BFGS requires
    optimizer = torch.optim.LBFGS(
        [image], max_iter=EVERY, max_eval=10 * EVERY, history_size=50, tolerance_grad=0, tolerance_change=0,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(image)
        loss.backward()
        return loss

    began = time.perf_counter()
    for step in range(EVERY, STEPS + 1, EVERY):
        optimizer.step(closure)
        with torch.no_grad():
            reached, clipped = float(loss_of(image)), float(loss_of(image.clamp(0, 1)))
        seconds = time.perf_counter() - began
        print(f"step {step:3}  loss {reached:.4f}, clipped to 0..1 {clipped:.4f}  {seconds:.0f} s", flush=True)
    print(f"reference  {reached:.4f}")
    print(f"target     {1.1 * reached:.4f}")


if __name__ == "__main__":
    main()
