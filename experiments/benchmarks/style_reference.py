"""What L-BFGS makes of generation/style-transfer in 500 steps: python -m experiments.benchmarks.style_reference

The recipe's loss is computed again by other means: hooks on torchvision's net instead of a loop over layers, Gram
matrices by einsum, torch's L-BFGS with a line search in a bare loop instead of Lightning. Only the settings and the
two pictures are the recipe's. Nothing keeps this picture within 0..1, as the recipe's is kept, which makes it easier:
beside its loss stands what is left of that once the picture is cut to 0..1 for a file. The bound is 1.1 times the loss.
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
PLACES = {"relu1_1": 1, "relu2_1": 6, "relu3_1": 11, "relu4_1": 18}  # among vgg16().features
MEAN, STD = (0.48235, 0.45882, 0.40784), 1 / 255  # of the weights, see their card


def features_by_hooks(weights: str) -> tuple[torch.nn.Module, dict[str, Tensor]]:
    """VGG16 up to its last place, and the dict that its outputs appear in."""
    net = torchvision.models.vgg16(weights=None).features[: max(PLACES.values()) + 1].requires_grad_(False)
    state = {name.removeprefix("features."): value.float() for name, value in load_file(data_dir() / weights).items()}
    net.load_state_dict({name: state[name] for name in net.state_dict()})
    seen = {}
    for name, place in PLACES.items():
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

    contents = look(data.pictures.content)
    styles = {name: gram(maps) for name, maps in look(data.pictures.style).items()}

    def loss_of(image: Tensor) -> Tensor:
        maps, loss = look(image), torch.zeros(())
        for name, weight in model["content_layers"].items():
            target = contents[name]
            loss = loss + weight * ((maps[name] - target) ** 2).sum() / (target**2).sum()
        for name, weight in model["style_layers"].items():
            error = ((gram(maps[name]) - styles[name]) ** 2).sum() / (styles[name] ** 2).sum()
            loss = loss + model["balance"] * weight * error
        return loss

    image = data.pictures.content.clone(memory_format=torch.contiguous_format).requires_grad_()  # as L-BFGS wants it
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
            reached, cut = float(loss_of(image)), float(loss_of(image.clamp(0, 1)))
        seconds = time.perf_counter() - began
        print(f"step {step:3}  loss {reached:.4f}, cut to 0..1 {cut:.4f}  {seconds:.0f} s", flush=True)
    print(f"reference  {reached:.4f}")
    print(f"bound      {1.1 * reached:.4f}")


if __name__ == "__main__":
    main()
