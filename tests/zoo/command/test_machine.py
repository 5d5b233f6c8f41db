"""What a training does with the machine that it is on."""

import platform

import pytest

from processes import run
from zoo.command.machine import keep_freed_memory

FAULTS = """
import resource
import torch
from zoo.command.lightning_cli import ZooCLI

ZooCLI("digits/small")


def step():  # allocates and frees 24 MB, which are 6 144 pages
    return len([torch.ones(2**21) for _ in range(3)])


step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is about glibc")
def test_a_training_keeps_the_memory_that_it_frees(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "faults.py").write_text(FAULTS)
    assert int(run("faults.py").splitlines()[-1]) < 600  # pages; without it, 6 144 in each step


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr("ctypes.CDLL", None)
    keep_freed_memory()
