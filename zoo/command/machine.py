"""The machine that a run is on: how its memory is used, and what a result says that it was computed with."""

import ctypes
import platform
import subprocess
from pathlib import Path

import torch
from lightning import Trainer

from zoo.command import recipes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST = 32 * 2**20  # bytes: the highest that glibc takes for M_MMAP_THRESHOLD
KEPT = 2**31 - 1  # bytes: the highest C int


def keep_freed_memory() -> None:
    """Has the C library keep the memory that this process frees, for its next allocations.

    In every step torch frees and allocates the same activations. By default glibc returns those of some size to the
    system, which clears each page before it hands it out again: up to a quarter of the time that a net trains on a
    CPU, see `experiments/benchmarks/kept_memory.py`. With another C library nothing changes.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT)


def device(trainer: Trainer) -> str:
    """Hardware and precision, such as "AMD EPYC, 2 thread(s), AVX512, 32-true"."""
    if trainer.strategy.root_device.type == "cuda":
        return f"{trainer.world_size} x {torch.cuda.get_device_name()}, {trainer.precision}"
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    units = f"{torch.get_num_threads()} thread(s), {torch.backends.cpu.get_cpu_capability()}"
    return f"{model}, {units}, {trainer.precision}"


def commit() -> str:
    """The commit of the checkout, with a + if files differ from it, other than those that hold results."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(recipes.ROOT), *arguments], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    generated = (":!results.csv", ":!results.lock", ":!../RESULTS.md", ":!../README.md")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "..", *generated)
    return (git("rev-parse", "--short=10", "HEAD") or "unknown") + ("+" if changed else "")
