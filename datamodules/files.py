"""The files of a data set: found locally, downloaded, or taken from a Debian package, and verified by their md5."""

import gzip
import hashlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

SYSTEM_FOLDER = Path("/usr/share/datasets")  # where Debian's dataset-* packages put their files
DOWNLOAD_TIMEOUT = 20  # seconds without an answer
COMMAND_TIMEOUT = 300  # seconds


def missing_or_corrupt(root: Path, files: dict[str, str]) -> list[str]:
    """The names of the files that are missing under `root`.

    Args:
        root: folder.
        files: path below `root` -> md5.

    Raises:
        ValueError: if a file has another md5; it is left as it is.
    """
    missing = [name for name in files if not (root / name).is_file()]
    for name in files.keys() - set(missing):
        with open(root / name, "rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != files[name]:
            raise ValueError(
                f"{root / name} is damaged: expected md5 {files[name]}, found {found} "
                f"({(root / name).stat().st_size} bytes); delete it, and it is fetched again"
            )
    return missing


def ensure_files(name: str, root: Path, files: dict[str, str], sources: dict[str, Callable[[Path], None]]) -> None:
    """Makes sure that `files` exist under `root`; if some are missing, tries the `sources` in order.

    A source writes into a temporary folder, and its files are moved only when all of them are verified.

    Args:
        name: of the data set, for messages.
        root: the data folder.
        files: path below `root` -> md5.
        sources: name of a source -> function that writes the files below the folder that it is given.

    Raises:
        ValueError: if a file under `root` is damaged.
        FileNotFoundError: if no source worked; lists what was tried.
    """
    missing = missing_or_corrupt(root, files)
    if not missing:
        return
    failures = []
    for source, fetch in sources.items():
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=root, prefix=".fetch-") as folder:
                fetch(Path(folder))
                if left_out := missing_or_corrupt(Path(folder), files):
                    raise FileNotFoundError(f"it has no {left_out[0]}")
                for file in files:
                    (root / file).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(Path(folder) / file, root / file)
            return
        except (OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
            failures.append(f"{source} ({_reason(error)})")
    raise FileNotFoundError(
        f"{name}: {missing[0]} is missing under {root}, and no source worked: {'; '.join(failures)}. "
        "Remedies: point ZOO_DATA (or --data.data_dir) at a folder that holds it, connect to the network "
        "so that it can be downloaded, or put the original files there by hand"
    )


def _reason(error: Exception) -> str:
    """An error in one short line; of a failed command its last line, as it may print warnings before."""
    stderr = (getattr(error, "stderr", None) or "").strip()
    detail = stderr.splitlines()[-1] if stderr else str(error)
    return " ".join(detail.split())[:160] or type(error).__name__


def torchvision_download(dataset: type) -> Callable[[Path], None]:
    """A source for `ensure_files`: torchvision's own download of `dataset`."""

    def fetch(folder: Path) -> None:
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
        try:
            dataset(folder, download=True)
        finally:
            socket.setdefaulttimeout(before)

    return fetch


def unpack(source: Path, target: Path) -> None:
    """Decompresses every `source/*.gz` into `target`."""
    if not source.is_dir():
        raise FileNotFoundError(f"no {source}")
    target.mkdir(parents=True, exist_ok=True)
    for packed in source.glob("*.gz"):
        with gzip.open(packed) as from_, open(target / packed.stem, "wb") as to:
            shutil.copyfileobj(from_, to)


def debian_package(package: str, inside: Path, target: str) -> Callable[[Path], None]:
    """A source for `ensure_files`: downloads and unpacks a Debian package, without root.

    Args:
        package: its name.
        inside: the folder in it that holds the .gz files.
        target: the folder for them, below the data folder.
    """

    def fetch(folder: Path) -> None:
        if not shutil.which("apt-get") or not shutil.which("dpkg"):
            raise FileNotFoundError("no apt-get here")
        folder = folder.absolute()  # the commands run inside it
        _run("apt-get", "download", package, folder=folder)
        _run("dpkg", "-x", str(next(folder.glob("*.deb"))), "package", folder=folder)
        unpack(folder / "package" / inside.relative_to("/"), folder / target)

    return fetch


def _run(*command: str, folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=COMMAND_TIMEOUT)
