"""The PyTorch Lightning module zoo: what is trained."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.inference.models import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """`zoo.load`, imported when it is first asked for: what it needs takes seconds."""
    if name == "load":
        from zoo.inference.models import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
