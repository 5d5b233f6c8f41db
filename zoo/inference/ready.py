"""Ready models: trained modules that come with the package, each one safetensors file below `zoo/weights`.

The file holds the tensors of the net and, in its header, a card: what it takes to build the module again, to prepare
its input, and to know where it is from. All of it is data, and nothing in it is run; what the card names is built only
as `zoo.trust` allows. `zoo publish` writes such files, and `zoo.load` and the command read them, as they read
checkpoints. This module does not import torch until tensors are read or written.
"""

import hashlib
import json
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_origin

from datamodules.messages import measured, nearest_names

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = Path(__file__).parents[1] / "weights"
SUFFIX = ".safetensors"
LENGTH = 8  # bytes before the header of a safetensors file, which say how long it is
UNSEALED = "0" * 64  # stands in the card for the hash of the file, while that is computed


@dataclass(frozen=True)
class Card:
    """What a file says about its model, beside the tensors.

    Args:
        recipe: that it was trained by.
        module: dotted path of the class.
        hyper_parameters: arguments of the class, plain data.
        data: what the datamodule says of its data: classes, mean, std, image_shape, tokenizer.
        dataset: dotted path of the datamodule.
        license: of the data that it was trained on.
        metric: the one that the recipe is judged by, a key of `result`; "" if the recipe does not say.
        result: what this file reaches: metrics of the recipe's evaluation.
        seed: of the training.
        commit: of the code that wrote the file.
        date: on which it was written.
        description: a few words, such as what an image shows.
        left_out: entries of the state that only training needs, such as a pool of samples, with their shapes.
        tied: entries that are the same tensor as another, and the name by which the file has it; `write` finds them.
    """

    recipe: str
    module: str
    hyper_parameters: dict[str, Any]
    data: dict[str, Any]
    dataset: str
    license: str
    metric: str
    result: dict[str, float]
    seed: int | None
    commit: str
    date: str
    description: str = ""
    left_out: dict[str, list[int]] = field(default_factory=dict)
    tied: dict[str, str] = field(default_factory=dict)

    def header(self) -> dict[str, str]:
        """As safetensors keeps it: text as it is, the rest as JSON.

        Raises:
            ValueError: if a value is not plain data.
        """
        try:
            return {
                name: value if isinstance(value, str) else json.dumps(value, allow_nan=False)
                for name, value in asdict(self).items()
            }
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"the hyper-parameters or metrics of {self.recipe} are not plain data ({error}): expected numbers, "
                "texts and lists; leave such arguments out of the recipe"
            ) from None

    @property
    def reached(self) -> str:
        """The figure in a few letters, such as "test/acc 0.9953"."""
        return f"{self.metric} {measured(self.result[self.metric])}" if self.metric in self.result else ""


def names() -> list[str]:
    """The ready models that come with the package, such as "digits/small"."""
    return sorted(path.relative_to(WEIGHTS).with_suffix("").as_posix() for path in WEIGHTS.rglob(f"*{SUFFIX}"))


def path_of(name: str) -> Path:
    """Where the ready model of a name is, or would be."""
    return WEIGHTS / f"{name}{SUFFIX}"


def find(name: str) -> Path:
    """The file of a ready model.

    Raises:
        ValueError: if there is none of this name.
    """
    if name in (known := names()):
        return path_of(name)
    same = [one for one in known if one.rpartition("/")[2] == name.rpartition("/")[2].replace("_", "-")]
    near = f"nearest: {', '.join(same)}" if same else nearest_names(name, known, f"there are {', '.join(known)}")
    raise ValueError(f"{name} does not come ready with the package: expected one that does; {near}")


def read_card(path: Path) -> Card:
    """The card of a file, without its tensors.

    Raises:
        ValueError: if it is not the file of a ready model.
        FileNotFoundError: if it does not exist.
    """
    return _card(path, _open(path, whole=False)[0])


def read(path: Path) -> "tuple[Card, dict[str, Tensor]]":
    """A ready model: its card, and the state of its module.

    Of what was left out the values are zero. Numbers of half precision become float32.

    Raises:
        ValueError: if the file is damaged, or not that of a ready model.
        FileNotFoundError: if it does not exist.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    header, content = _open(path)
    card = _card(path, header)
    if _sha256(content, header.get("sha256", "")) != header.get("sha256"):
        raise ValueError(f"{path} is damaged: its card and tensors have another hash than it says; get the file again")
    try:
        stored = load(content)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): get the file again") from None
    state = {name: tensor.float() if tensor.dtype == torch.half else tensor for name, tensor in stored.items()}
    state |= {name: torch.zeros(()).expand(shape) for name, shape in card.left_out.items()}
    return card, state | {name: state[other] for name, other in card.tied.items()}


def write(path: Path, card: Card, state: "dict[str, Tensor]", half: bool = False) -> Path:
    """Writes a ready model.

    Args:
        path: of the file; one that exists is replaced.
        card: what the header says.
        state: of the module, but what is left out.
        half: keep weights in half precision; vectors, such as biases and the statistics of norms, stay as they are,
            as they take little room.

    Raises:
        ValueError: if a number is too large for half precision, or the card is not plain data.
        OSError: if the file cannot be written.
    """
    from safetensors.torch import save

    from datamodules.io import atomic_write  # imports numpy, which a list of names does without

    first: dict[tuple, str] = {}
    tied = {name: first.setdefault(_place(name, tensor), name) for name, tensor in state.items()}
    tied = {name: other for name, other in tied.items() if name != other}
    tensors = {
        name: _halved(name, tensor) if half else tensor.contiguous().clone()  # safetensors takes no views of others
        for name, tensor in state.items()
        if name not in tied
    }
    content = save(tensors, {**replace(card, tied=tied).header(), "sha256": UNSEALED})
    with atomic_write(path) as temporary:
        temporary.write_bytes(content.replace(UNSEALED.encode(), _sha256(content, UNSEALED).encode(), 1))
    return path


def _place(name: str, tensor: "Tensor") -> tuple:
    """What is equal for two names of the same numbers in memory."""
    return (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else (name,)


def _halved(name: str, tensor: "Tensor") -> "Tensor":
    if tensor.ndim < 2 or not tensor.is_floating_point():
        return tensor.contiguous().clone()
    half = tensor.half().contiguous()
    if not half.isfinite().all():
        raise ValueError(f"{name} has numbers up to {tensor.abs().max():.3g}: expected up to 65504 for half precision")
    return half


def _open(path: Path, whole: bool = True) -> tuple[dict[str, str], bytes]:
    """The card of a file as text, and its content, of which `whole` asks for all."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(LENGTH), "little")
            size = path.stat().st_size
            header = file.read(length) if length <= size else b""
            content = length.to_bytes(LENGTH, "little") + header + file.read() if whole else b""
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist: expected the file of a ready model; check the path") from None
    try:
        return {name: str(value) for name, value in json.loads(header)["__metadata__"].items()}, content
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _no_model(path, "it has no card") from None


def _card(path: Path, header: dict[str, str]) -> Card:
    values: dict[str, Any] = {}
    for one in fields(Card):
        if one.name not in header:
            if one.default is not MISSING or one.default_factory is not MISSING:
                continue
            raise _no_model(path, f"its card has no {one.name}")
        try:
            values[one.name] = header[one.name] if one.type is str else json.loads(header[one.name])
        except ValueError:
            raise _no_model(path, f"its {one.name} is not JSON") from None
        if not isinstance(values[one.name], dict if get_origin(one.type) is dict else one.type):  # type: ignore[arg-type]
            raise _no_model(path, f"its {one.name} is {header[one.name][:60]}, which is not a {one.type}")
    return Card(**values)


def _no_model(path: Path, reason: str) -> ValueError:
    return ValueError(f"{path} is not a ready model ({reason}): expected a file that `zoo publish` wrote")


def _sha256(content: bytes, sealed: str) -> str:
    """The hash of a file, card and tensors, as if the hash that it says were not yet in it."""
    return hashlib.sha256(content.replace(sealed.encode(), UNSEALED.encode(), 1)).hexdigest()
