"""Files: those of a data set found, here, in a system folder, by download or by Debian's package; new ones written.

A file of a data set counts only if its md5 is right. New files, of any kind, are put together beside their place and
moved there when they are whole, so that whatever is interrupted leaves nothing half done behind.
"""

import gzip
import hashlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

SYSTEM = Path("/usr/share/datasets")  # where Debian's dataset-* packages put their files
DOWNLOAD_TIMEOUT = 20  # seconds without an answer


def missing_or_corrupt(root: Path, files: dict[str, str]) -> list[str]:
    """The files that are not under `root`.

    Args:
        root: folder.
        files: path below `root` -> md5.

    Raises:
        ValueError: if a file is there but is not what it should be; it is left alone.
    """
    absent = [name for name in files if not (root / name).is_file()]
    for name in files.keys() - set(absent):
        with open(root / name, "rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != files[name]:
            raise ValueError(
                f"{root / name} is damaged: expected md5 {files[name]}, found {found} "
                f"({(root / name).stat().st_size} bytes); delete it, and it is fetched again"
            )
    return absent


def ensure_files(name: str, root: Path, files: dict[str, str], sources: dict[str, Callable[[Path], None]]) -> None:
    """Sees to it that `files` stand under `root`, trying the `sources` in order.

    Args:
        name: of the data set, for messages.
        root: folder of all data sets.
        files: path below `root` -> md5.
        sources: what a way is called -> function that writes the files below the folder it is given.

    Raises:
        ValueError: if a file is damaged.
        FileNotFoundError: if no way led there; says what was tried.
    """
    absent = missing_or_corrupt(root, files)
    if not absent:
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
            failures.append(f"{source} ({_short(error)})")
    raise FileNotFoundError(
        f"{name}: {absent[0]} is not under {root}, and nothing else worked: {'; '.join(failures)}. "
        "Remedies: point ZOO_DATA (or --data.data_dir) at a folder that holds it, connect to the network "
        "so that it can be downloaded, or put the original files there by hand"
    )


def _short(error: Exception) -> str:
    said = getattr(error, "stderr", None)  # of a command, which may warn of other things before
    detail = said.strip().splitlines()[-1] if said and said.strip() else str(error)
    return " ".join(detail.split())[:160] or type(error).__name__


def torchvision_download(dataset: type) -> Callable[[Path], None]:
    """A way for `ensure_files`: torchvision's own download of `dataset`."""

    def fetch(folder: Path) -> None:
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
        try:
            dataset(folder, download=True)
        finally:
            socket.setdefaulttimeout(before)

    return fetch


def unpack(source: Path, target: Path) -> None:
    """Writes every `source/*.gz` unpacked into `target`."""
    if not source.is_dir():
        raise FileNotFoundError(f"no {source}")
    target.mkdir(parents=True, exist_ok=True)
    for packed in source.glob("*.gz"):
        with gzip.open(packed) as from_, open(target / packed.stem, "wb") as to:
            shutil.copyfileobj(from_, to)


def debian_package(package: str, inside: Path, target: str) -> Callable[[Path], None]:
    """A way for `ensure_files`: fetch and unpack a Debian package, with no need of root.

    Args:
        package: its name.
        inside: the folder in it that holds the .gz files.
        target: where they go, below the folder of all data sets.
    """

    def fetch(folder: Path) -> None:
        if not shutil.which("apt-get") or not shutil.which("dpkg"):
            raise FileNotFoundError("no apt-get here")
        folder = folder.absolute()  # the commands run inside it
        run = {"cwd": folder, "check": True, "capture_output": True, "text": True, "timeout": 300}
        subprocess.run(["apt-get", "download", package], **run)
        subprocess.run(["dpkg", "-x", next(folder.glob("*.deb")), "package"], **run)
        unpack(folder / "package" / inside.relative_to("/"), folder / target)

    return fetch
