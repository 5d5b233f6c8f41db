"""Trained modules as programs that run without the zoo: torch.export's, or ONNX."""

import importlib
import io
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from datamodules.io import atomic_write
from zoo.inference.plans import Plan

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
TOLERANCE = 1e-4  # by which the outputs of a program may differ from the module's
ABOUT = "about.json"  # in a .pt2 file

Run = Callable[..., list[Tensor]]


class Exported(NamedTuple):
    """A program that was written.

    path: the file.
    free: names of the axes that may have any size.
    difference: the largest one from the outputs of the module; None if it was not compared.
    usage: some lines of Python.
    """

    path: Path
    free: tuple[str, ...]
    difference: float | None
    usage: str


def export(plan: Plan, path: Path, format: str, about: dict[str, Any]) -> Exported:
    """Writes what is planned as a program, reads it again and compares it with the module, in several sizes.

    Args:
        plan: see `zoo.inference.plans.plan`.
        path: of the file.
        format: "onnx" or "torch".
        about: what the file says of itself beside what the plan says; texts, numbers and lists.

    Raises:
        ValueError: for an unknown format, if a package is missing, or if the program differs from the module.
        OSError: if the file cannot be written.
    """
    if format not in SUFFIXES:
        raise ValueError(f"format is {format}: expected one of {', '.join(SUFFIXES)}")
    program, plan.free = traced(plan)
    facts = {name: value for name, value in {**about, **plan.about}.items() if value not in (None, "")}
    if format == "onnx":
        content = as_onnx(program, plan, facts)
        loaded = onnx_session(content, plan)
    else:
        content = as_torch(program, facts)
        loaded = torch_program(content)
    found = None if loaded is None else difference(loaded, plan)
    if found is not None and found > TOLERANCE:
        raise ValueError(
            f"the program differs from the module by {found:.1e}: expected {TOLERANCE:g} at most; take another --format"
        )
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
    return Exported(path, plan.free, found, usage(plan, path, format))


def traced(plan: Plan) -> tuple[ExportedProgram, tuple[str, ...]]:
    """The program of torch.export, and the axes that are free in it: all that were asked for, else the batch.

    Raises:
        ValueError: if torch cannot trace the module.
    """
    reason = ""
    for free in dict.fromkeys((plan.free, tuple(name for name in plan.free if name in ("batch", "sentences")))):
        given = {name: Dim(name) if name in ("batch", "sentences") else Dim.AUTO for name in free}
        shapes = tuple({i: given[axis] for i, axis in enumerate(axes) if axis in given} for axes in plan.sizes.values())
        plan.free = free
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                # Strict: it follows `len(x)` and the like, which would otherwise make a constant of a size.
                program = torch.export.export(plan.graph, plan.inputs(), dynamic_shapes=shapes, strict=True)
            if difference(_listed(program.module()), plan) <= TOLERANCE:
                return program, free
        except (RuntimeError, ValueError, AssertionError, TypeError) as error:
            reason = " ".join(str(error).split())[:300]
    raise ValueError(f"torch.export cannot follow this module ({reason}): expected one without choices by values")


def difference(run: Run, plan: Plan) -> float:
    """The largest difference of a program's outputs from the module's, at usual and other sizes.

    It is a share of the largest value of an output where that is above 1, as of boxes in pixels.
    """
    largest = 0.0
    for sizes in ({}, {"batch": 1}, plan.larger()):
        inputs = plan.inputs(**sizes)
        with torch.inference_mode():
            expected = plan.graph(*inputs)
        expected = [expected] if isinstance(expected, Tensor) else expected
        for one, other in zip(run(*inputs), expected, strict=True):
            if one.shape != other.shape:
                return float("inf")
            largest = max(largest, float((one.detach() - other).abs().max() / other.abs().max().clamp_min(1)))
    return largest


def _listed(module: Any) -> Run:
    """A program whose outputs are always a list."""

    def run(*inputs: Tensor) -> list[Tensor]:
        with torch.no_grad():
            outputs = module(*inputs)
        return [outputs] if isinstance(outputs, Tensor) else list(outputs)

    return run


def as_torch(program: ExportedProgram, about: dict[str, Any]) -> bytes:
    """The content of a .pt2 file."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, file, extra_files={ABOUT: json.dumps(about)})
    return file.getvalue()


def torch_program(content: bytes) -> Run:
    return _listed(torch.export.load(io.BytesIO(content)).module())


def as_onnx(program: ExportedProgram, plan: Plan, about: dict[str, Any]) -> bytes:
    """The content of an .onnx file, with names for inputs, outputs and free axes.

    Raises:
        ValueError: if the packages that write it are missing.
    """
    names = {"input_names": list(plan.sizes), "output_names": list(plan.outputs)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            written: Any = torch.onnx.export(program, dynamo=True, verbose=False, **names)  # type: ignore[arg-type]
    except (ImportError, torch.onnx.errors.OnnxExporterError) as error:
        if isinstance(error.__cause__ or error, ImportError):
            raise ValueError(
                "format is onnx, for which packages are missing: expected onnx and onnxscript, and onnxruntime to "
                "check the result; pip install onnx onnxscript onnxruntime, or take --format torch"
            ) from None
        raise
    model = written.model
    axes = _axes_of_symbols(program, plan)
    for value in [*model.graph.inputs, *model.graph.outputs, *(out for node in model.graph for out in node.outputs)]:
        for i, dim in enumerate(value.shape or ()):
            if not isinstance(dim, int) and dim.value is not None:
                value.shape[i] = re.sub(r"\b[su]\d+\b", lambda symbol: axes.get(symbol[0], symbol[0]), str(dim.value))
    model.metadata_props.update({name: v if isinstance(v, str) else json.dumps(v) for name, v in about.items()})
    return written.model_proto.SerializeToString()


def _axes_of_symbols(program: ExportedProgram, plan: Plan) -> dict[str, str]:
    """torch's symbols for sizes, such as s77, with the names of the axes."""
    inputs = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    return {
        str(size): axis
        for node, axes in zip(inputs, plan.sizes.values(), strict=True)
        for size, axis in zip(node.meta["val"].shape, axes, strict=True)
        if isinstance(axis, str)
    }


def onnx_session(content: bytes, plan: Plan) -> Run | None:
    """A program in onnxruntime; None if that is not installed."""
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError:
        return None
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(*inputs: Tensor) -> list[Tensor]:
        arrays = {name: one.numpy() for name, one in zip(plan.sizes, inputs, strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, arrays)]

    return run


def usage(plan: Plan, path: Path, format: str) -> str:
    """Some lines of Python that use a program, without the zoo."""
    one_output = len(plan.outputs) == 1
    outputs = ", ".join(plan.outputs)
    needs_about = "about[" in "".join([*plan.load, plan.show])
    if format == "onnx":
        imports = ("json, " if needs_about else "") + ", ".join(("numpy as np", "onnxruntime", *plan.imports))
        lines = [f"import {imports}", f"session = onnxruntime.InferenceSession({str(path)!r})"]
        if needs_about:
            lines.append("about = session.get_modelmeta().custom_metadata_map")
        feed = ", ".join(f"{name!r}: {name}" for name in plan.sizes)
        call = f"{outputs} = session.run(None, {{{feed}}}){'[0]' if one_output else ''}"
        show = re.sub(r"about\[([^]]+)\](?=\[)", r"json.loads(about[\1])", plan.show)
    else:
        imports = ("json, " if needs_about else "") + ", ".join(("numpy as np", "torch", *plan.imports))
        lines = [f"import {imports}"]
        extra = f", extra_files=(extra := {{{ABOUT!r}: ''}})" if needs_about else ""
        lines.append(f"program = torch.export.load({str(path)!r}{extra}).module()")
        if needs_about:
            lines.append(f"about = json.loads(extra[{ABOUT!r}])")
        arrays = [f"torch.from_numpy({name})" for name in plan.sizes]
        call = f"{outputs} = program({', '.join(arrays)})"
        show = plan.show
    return "\n".join([*lines, *plan.load, call, show])
