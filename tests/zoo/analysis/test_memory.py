"""Memory is freed after an error, and a run that is out of memory names a batch size to try."""

import gc
import sys
import weakref
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

import zoo.analysis.memory
from callbacks.runtime.out_of_memory import OutOfMemory, is_out_of_memory
from helpers import Recorder, Synthetic, quiet_trainer
from zoo.analysis.memory import free_memory
from zoo.classification.resnet_mini import ResNetMini
from zoo.command.main import main

CUDA = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1 is free."
TINY = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.accelerator", "cpu"]
ALIVE: list[weakref.ref] = []


LAST = ("last_exc", "last_value", "last_traceback", "last_type")


@pytest.fixture(autouse=True, scope="module")
def quick_garbage_collection():
    gc.collect()
    gc.freeze()  # the objects of torch and Lightning need not be searched again and again
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def nothing_is_left_from_before():
    ALIVE.clear()
    yield
    for name in LAST:
        vars(sys).pop(name, None)


def fails(error: BaseException | None = None) -> None:
    """Holds a tensor in a local variable while it fails."""
    big = torch.zeros(1000)
    ALIVE.append(weakref.ref(big))
    raise error or torch.OutOfMemoryError(CUDA)


def caught(function=fails, *arguments) -> BaseException:
    try:
        function(*arguments)
    except BaseException as error:
        return error


def alive() -> int:
    """The number of tensors that are left after ordinary garbage collection."""
    gc.collect()
    return sum(reference() is not None for reference in ALIVE)


# Freeing memory


def test_a_tensor_of_a_failed_function_is_freed():
    error = caught()
    assert alive() == 1
    freed = free_memory(error)
    assert alive() == 0
    assert (freed is None) == (not torch.cuda.is_available() and not torch.backends.mps.is_available())
    assert error.__traceback__ is not None, "the place of the error is still known"


def test_the_error_that_is_being_handled_need_not_be_given():
    try:
        fails()
    except torch.OutOfMemoryError:
        assert alive() == 1
        free_memory()
        assert alive() == 0


def test_the_copy_of_local_variables_that_a_debugger_made_is_freed():
    error = caught()
    assert "big" in error.__traceback__.tb_next.tb_frame.f_locals
    free_memory(error)
    assert alive() == 0


def test_variables_of_running_functions_are_kept():
    mine = torch.zeros(1)
    try:
        fails()
    except torch.OutOfMemoryError as error:
        free_memory(error)
    ALIVE.append(weakref.ref(mine))
    assert alive() == 1
    del mine
    assert alive() == 0, "and no copy of them was made"


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("names", [{"last_value"}, {"last_exc"}, {"last_traceback"}, {"last_value", "last_traceback"}])
def test_a_tensor_of_the_last_uncaught_error_is_freed(names, kept):
    error = caught()
    for name in names:
        setattr(sys, name, error.__traceback__ if name == "last_traceback" else error)
    kept = [error, error.__traceback__] if kept else []  # as IPython does, for its debugger
    del error
    assert alive() == 1
    free_memory()
    assert alive() == 0
    assert not any(hasattr(sys, name) for name in names)
    del kept


def after(how: str) -> None:
    """Fails with an error that another error caused."""
    first = caught()
    later = ExceptionGroup("later", [first]) if how == "group" else ValueError("later")
    later.__cause__, later.__context__ = (first if how == name else None for name in ("cause", "context"))
    raise later


@pytest.mark.parametrize("how", ["cause", "context", "group"])
def test_a_tensor_of_an_earlier_error_is_freed(how):
    error = caught(after, how)
    assert alive() == 1
    free_memory(error)
    assert alive() == 0


def test_errors_that_cause_each_other_do_not_loop():
    first, second = caught(), caught()
    first.__cause__, second.__cause__ = second, first
    assert alive() == 2
    free_memory(first)
    assert alive() == 0


def shell_with(tensors: list[torch.Tensor]) -> SimpleNamespace:
    """IPython after three lines with these outputs."""
    outputs = dict(enumerate(tensors, 1))
    recent = dict(zip(("_", "__", "___"), reversed(tensors), strict=True))
    inputs = {"_i": "c", "_ii": "b", "_iii": "a", "_i1": "a", "_i2": "b", "_i3": "c", "In": ["", "a", "b", "c"]}
    own = {"_oh": outputs, "Out": outputs, **recent, **inputs, **{f"_{n}": value for n, value in outputs.items()}}
    return SimpleNamespace(
        user_ns={**own, "mine": torch.ones(1), "_private": torch.ones(1), "_x1": 1},
        user_ns_hidden=dict(own),
        displayhook=SimpleNamespace(**recent),
        last_execution_result=SimpleNamespace(result=tensors[-1]),
    )


def test_the_outputs_of_a_notebook_are_freed_and_nothing_else(monkeypatch):
    tensors = [torch.zeros(1000) for _ in range(3)]
    ALIVE.extend(map(weakref.ref, tensors))
    shell = shell_with(tensors)
    del tensors
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert alive() == 3
    free_memory()
    assert alive() == 0
    assert {"mine", "_private", "_x1", "In", "Out", "_oh", "_"} <= shell.user_ns.keys()
    assert shell.user_ns["Out"] is shell.user_ns["_oh"]
    assert not {"_1", "_i1"} & shell.user_ns.keys()


def test_ipython_that_is_imported_but_does_not_run_is_ignored(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    error = caught()
    free_memory(error)
    assert alive() == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_device_gets_its_memory_back():
    def too_much():
        held = torch.zeros(1 << 28, device="cuda")
        return torch.zeros(1 << 50, device="cuda") + held

    error = caught(too_much)
    assert is_out_of_memory(error)
    assert free_memory(error) >= 1 << 30


# The message of a run


def test_which_errors_mean_that_memory_ran_out():
    assert is_out_of_memory(caught(lambda: torch.empty(1 << 55)))
    assert is_out_of_memory(caught(lambda: bytearray(1 << 62)))
    assert is_out_of_memory(torch.OutOfMemoryError("any text"))
    assert is_out_of_memory(RuntimeError(CUDA))
    assert not is_out_of_memory(RuntimeError("another error"))
    assert not is_out_of_memory(ValueError("out of memory"))


class Hungry(ResNetMini):
    """Runs out of memory in the given step, with a tensor in a local variable."""

    def __init__(self, phase: str, kind: str = "cuda", **options) -> None:
        super().__init__(**options)
        self.phase, self.kind = phase, kind

    def forward(self, *arguments):
        if self.phase == self.trainer.state.stage.value:
            if self.kind == "cuda":
                fails()
            big = torch.zeros(1000)
            ALIVE.append(weakref.ref(big))
            if self.kind == "cpu":
                torch.empty(1 << 55)
            raise MemoryError
        return super().forward(*arguments)


@pytest.fixture
def user_message(tmp_path, monkeypatch, capfd):
    """Runs the command, which must end with 2; returns the one line."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        capfd.readouterr()
        assert main(list(words)) == 2
        text = capfd.readouterr().err
        assert "Traceback" not in text
        (line,) = [line for line in text.splitlines() if line.startswith("zoo: ")]
        assert text.rstrip().endswith(line)
        return line

    return run


def hungry(phase: str, kind: str = "cuda") -> list[str]:
    return ["digits/small", *TINY, "--model", f"{__name__}.Hungry", "--model.phase", phase, "--model.kind", kind]


@pytest.mark.parametrize(
    ("verb", "phase", "kind", "options", "parts"),
    [
        ("fit", "train", "cuda", ["--data.batch_size", "64"], [
            "in training with batch_size 64 per device, asking for 20.00 GiB",
            "try --data.batch_size 32 --trainer.accumulate_grad_batches 2, which keeps the effective batch of 64",
        ]),
        ("fit", "train", "cpu", ["--data.batch_size", "25", "--trainer.accumulate_grad_batches", "3"], [
            "asking for 144115188075855872 bytes",
            "try --data.batch_size 12 --trainer.accumulate_grad_batches 6, which makes an effective batch of 72, now 75"
        ]),
        ("fit", "train", "python", ["--data.batch_size", "3"], [
            "--data.batch_size 1 --trainer.accumulate_grad_batches 3, which keeps the effective batch of 3",
        ]),
        ("reproduce", "train", "cuda", ["--data.batch_size", "1"], [
            "in training with batch_size 1 per device", "it cannot be halved; take smaller inputs or a smaller net",
        ]),
        ("fit", "validate", "cuda", ["--data.eval_batch_size", "100", "--trainer.num_sanity_val_steps", "0"], [
            "in validation with eval_batch_size 100 per device", "try --data.eval_batch_size 50",
        ]),
        ("fit", "sanity_check", "cpu", ["--data.eval_batch_size", "100"], [
            "in validation with eval_batch_size 100 per device", "try --data.eval_batch_size 50",
        ]),
    ],
)  # fmt: skip
def test_a_run_that_is_out_of_memory_names_a_batch_size_to_try(user_message, verb, phase, kind, options, parts):
    line = user_message(verb, *hungry(phase, kind), *options)
    assert all(part in line for part in ["zoo: out of memory", *parts]), line
    assert "bf16" not in line, "it saves little on a CPU, and may be very slow"
    assert ("accumulate" in line) == (phase == "train" and "halved" not in line)
    assert len(line) < 300


def test_evaluation_on_the_test_set_too(user_message):
    assert main(["fit", *hungry("nowhere")]) == 0
    line = user_message("test", *hungry("test"), "--data.eval_batch_size", "31")
    assert "in test with eval_batch_size 31 per device" in line
    assert line.endswith("try --data.eval_batch_size 15")


def test_data_that_do_not_fit_are_not_explained_by_the_batch_size(user_message, monkeypatch):
    monkeypatch.setattr("datamodules.images.digits.Digits.make_datasets", lambda self: fails(MemoryError()))
    line = user_message("fit", *hungry("nowhere"))
    assert "before the first batch of training: net or data are too large" in line
    assert "batch_size" not in line


def test_memory_is_freed_before_the_command_returns(user_message, monkeypatch):
    seen = []

    def free(error):
        seen.append(alive())
        free_memory(error)
        seen.append(alive())

    monkeypatch.setattr(zoo.analysis.memory, "free_memory", free)
    user_message("fit", *hungry("train", "cpu"))
    assert seen == [1, 0]


def test_debug_shows_the_error_itself(user_message):
    with pytest.raises(torch.OutOfMemoryError) as raised:
        main(["fit", *hungry("train"), "--debug"])
    assert "--data.batch_size" in raised.value.__notes__[0]
    assert alive() == 1, "for a debugger, which shows its frames"


def test_without_a_trainer_the_message_is_one_line_too(user_message, monkeypatch):
    monkeypatch.setattr("zoo.command.actions.predict.make_predictor", lambda *_, **__: fails())
    assert "zoo: out of memory: CUDA out of memory. Tried" in user_message("predict", "digits/small", "a.png")


def test_other_runtime_errors_keep_their_traceback(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("zoo.command.actions.predict.make_predictor", lambda *_, **__: fails(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        main(["predict", "digits/small", "a.png"])


class Plain(Recorder):
    """A module without a datamodule; fails in the given step."""

    def __init__(self, phase: str) -> None:
        super().__init__()
        self.phase = phase

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) if self.phase != "train" else fails()

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        return super().validation_step(batch, batch_idx, dataloader_idx) if self.phase != "val" else fails()


def note_of(module: Recorder, *data, **options) -> str:
    trainer = quiet_trainer(max_epochs=1, num_sanity_val_steps=0, callbacks=[OutOfMemory()], **options)
    error = caught(partial(trainer.fit, module), *data)
    assert type(error) is torch.OutOfMemoryError, "it is the error that the step raised"
    assert str(error) == CUDA
    (note,) = error.__notes__
    return note


def test_in_python_the_error_has_a_note_with_python_arguments():
    loader = DataLoader(torch.zeros(32, 1), batch_size=16)
    assert note_of(Plain("train"), loader).endswith(
        "in training with batch_size 16 per device, asking for 20.00 GiB: "
        "try batch_size=8 and Trainer(accumulate_grad_batches=2), which keeps the effective batch of 16"
    )
    loaders = {"a": DataLoader(torch.zeros(32, 1), batch_size=4), "b": loader}
    assert "batch_size 16 per device" in note_of(Plain("train"), loaders)
    assert note_of(Plain("val"), loader, loaders["a"]).endswith("try batch_size=2")
    assert "in validation with batch_size 4 " in note_of(Plain("val"), loader, [loaders["a"]])
    assert note_of(Plain("train"), DataLoader(torch.zeros(8, 1), batch_size=None)).endswith("take a smaller batch")
    assert "eval_batch_size=35" in note_of(Plain("val"), Synthetic(batch_size=8, eval_batch_size=71))


def test_accumulation_is_not_suggested_for_manual_optimization():
    module = Plain("train")
    module.automatic_optimization = False
    assert note_of(module, DataLoader(torch.zeros(32, 1), batch_size=16)).endswith("try batch_size=8")


@pytest.mark.parametrize(
    ("precision", "more"), [("32-true", "; or Trainer(precision='bf16-mixed')"), ("bf16-mixed", "")]
)
def test_half_precision_is_suggested_on_a_device_that_has_it(monkeypatch, precision, more):
    trainer = quiet_trainer(precision=precision, max_epochs=1, callbacks=[OutOfMemory()])
    trainer.fit(Plain("nowhere"), DataLoader(torch.zeros(32, 1), batch_size=16))
    monkeypatch.setattr(type(trainer.strategy), "root_device", torch.device("cuda"))
    trainer.training = True
    trainer.callbacks[0].on_exception(trainer, trainer.lightning_module, error := MemoryError())
    assert error.__notes__[0].endswith(f"effective batch of 16{more}")


def test_other_errors_get_no_note():
    trainer = quiet_trainer(max_epochs=1, callbacks=[OutOfMemory()])
    module = Plain("nowhere")
    module.on_train_start = lambda: fails(RuntimeError("another error"))
    assert not hasattr(caught(trainer.fit, module, DataLoader(torch.zeros(4, 1))), "__notes__")
