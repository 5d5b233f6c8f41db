"""What a result was computed with: the hardware and the commit of the checkout."""

import platform
import subprocess
from pathlib import Path

import torch
from lightning import Trainer

from zoo.command import recipes


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
