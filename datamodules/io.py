"""Reading and writing files: one rule for where a file is looked for, and new files that are complete or absent.

Everything that takes a path from the user uses `find_file`, and everything that writes a file uses `atomic_write`.
"""

import glob
import os
import platform
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


def data_dir(given: str | os.PathLike | None = None) -> Path:
    """The data folder, which holds all data sets: the given one, else `$ZOO_DATA`, else `data`."""
    return Path(given or os.environ.get("ZOO_DATA") or "data")


def find_file(path: str | os.PathLike, what: str, folder: str | os.PathLike | None = None) -> Path:
    """The file or folder that a user means by `path`: relative to the working directory, else to the data folder.

    Args:
        path: as given; an absolute path is taken as it is.
        what: the kind of file that is expected, for the error message, such as "an image file".
        folder: the data folder; default as in `data_dir`.

    Raises:
        FileNotFoundError: if it exists in neither.
    """
    folder = data_dir(folder)
    for place in (Path(path), folder / path):
        if place.exists():
            return place
    if Path(path).is_absolute():
        raise FileNotFoundError(f"{path} does not exist: expected {what}; check the path")
    raise FileNotFoundError(
        f"{path} does not exist, neither here nor in {folder}: expected {what}; check the path, "
        "or point ZOO_DATA (or --data.data_dir) at the folder that holds it"
    )


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path next to `path` to write to, and renames it to `path` at the end; creates the folder.

    Raises:
        OSError: if the file cannot be written; an older file of this name stays as it was. Errors of what else is done
            meanwhile, such as of another file that is read, are raised as they are.
    """
    path = Path(path)
    host = re.sub(r"\W", "", platform.node())
    temporary = path.with_name(f".{path.name}.{host}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{glob.escape(path.name)}.{host}.*"):
            if not _is_running(left.suffix[1:]):  # a process of this machine that was killed while it wrote
                with suppress(OSError):
                    left.unlink()
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())  # without this the new name might lead to an empty file after a crash
        os.replace(temporary, path)
    except Exception as error:
        # Libraries clean up after an OSError, and may raise an error of another type while they do.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError) or not _is_about(cause, temporary):
            raise
        raise OSError(
            f"{path} could not be written ({cause.strerror or cause}), and an older file of this name stays as it was: "
            "expected a writable folder with enough space; free some space, or choose another folder"
        ) from cause
    finally:
        with suppress(OSError):  # it does not exist if all went well, or if it could not be created
            temporary.unlink()


def _is_about(error: OSError, path: Path) -> bool:
    """Whether an error may come from writing to a path; if not, it is of another file or of a closed pipe."""
    if isinstance(error, BrokenPipeError) or error.errno is None:  # without a number it is not the system's
        return False
    return not isinstance(error.filename, (str, os.PathLike)) or path.is_relative_to(error.filename)


def _is_running(process: str) -> bool:
    """Whether a process of this number runs on this machine; true if that cannot be known."""
    if not process.isdigit() or os.name != "posix":
        return True
    try:
        os.kill(int(process), 0)  # sends nothing
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def user_files(folder: Path, suffixes: Iterable[str] | None = None, deep: bool = True) -> list[Path]:
    """The files of a folder that a person put there, sorted; not what operating systems and editors add.

    Left out are hidden files and folders (such as `._00.jpg` and `.ipynb_checkpoints`), `__MACOSX` and the like.

    Args:
        folder: to look in.
        suffixes: only files with one of these, in any case.
        deep: also look in its folders, at any depth.
    """
    wanted = None if suffixes is None else {suffix.lower() for suffix in suffixes}
    found = []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if is_users(name)) if deep else []
        paths = (Path(place, name) for name in names if is_users(name))
        found += [path for path in paths if wanted is None or path.suffix.lower() in wanted]
    return sorted(found)


def is_users(name: str) -> bool:
    """Whether a file or folder of this name is one that a person put there; see `user_files`."""
    return not name.startswith(".") and name.lower() not in {"__macosx", "thumbs.db", "desktop.ini"}


def read_image(
    path: str | Path, mode: str = "RGB", upright: bool = True, at_least: tuple[int, int] | None = None
) -> Image.Image:
    """Reads an image file in PIL mode `mode` ("RGB" or "L"); transparent parts become white.

    Args:
        path: of the file.
        mode: of the result.
        upright: turn the image as its EXIF tag says; False for the pixels as they are stored.
        at_least: a size (width, height) that is enough: a JPEG may be decoded at a half, a quarter or an eighth of its
            size as long as it keeps that, which takes much less time and memory.

    Raises:
        ValueError: if PIL cannot read the file as an image, or its numbers are in no known range.
        FileNotFoundError: if the file does not exist.
    """
    try:
        with Image.open(path) as file:
            if at_least is not None:
                file.draft(None, (max(at_least),) * 2)  # either side may become the width when it is turned
            image = ImageOps.exif_transpose(file) if upright else file
            if image.mode.startswith(("I", "F")):  # more than 8 bits, which PIL would clip
                image = Image.fromarray(_to_uint8(np.asarray(image)))
            image = image.convert("RGBA") if image.has_transparency_data else image.convert(mode)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist: expected an image file; check the path") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{path} cannot be read as an image ({error}): expected a complete JPEG, PNG or similar file; "
            "convert it, or remove it from the folder"
        ) from None
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height of an image file when turned upright, without decoding it.

    Raises:
        ValueError, FileNotFoundError: as `read_image`.
    """
    try:
        with Image.open(path) as file:
            width, height = file.size
            is_turned = file.getexif().get(0x0112, 1) >= 5
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist: expected an image file; check the path") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{path} cannot be read as an image ({error}): expected a complete JPEG, PNG or similar file; "
            "convert it, or remove it"
        ) from None
    return (height, width) if is_turned else (width, height)


def _to_uint8(values: np.ndarray) -> np.ndarray:
    """Gray values of more than 8 bits -> uint8, by the range that they fill.

    Floats are in 0..1 or 0..255; integers in 0..255, 0..4095 (12 bits, as scanners and microscopes give) or 0..65535.

    Raises:
        ValueError: for other values.
    """
    low, high = float(values.min()), float(values.max())
    is_float = np.issubdtype(values.dtype, np.floating)
    ranges = (1.0, 255.0) if is_float else (255.0, 4095.0, 65535.0)
    top = next((limit for limit in ranges if high <= limit), None)
    if low < 0 or top is None or not np.isfinite(values).all():
        wanted = " or ".join(f"0..{limit:g}" for limit in ranges)
        raise ValueError(f"it has values from {low:g} to {high:g}: expected {wanted}")
    return (values.astype(np.float64) / top * 255).round().astype(np.uint8)


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without a byte order mark.

    Raises:
        ValueError: if the file is not UTF-8, is empty but for white space, or is a folder.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder: expected a UTF-8 text file; name a file in it")
    content = path.read_bytes()
    try:
        text = content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8: byte 0x{content[error.start]:02x} at offset {error.start} ({error.reason}); "
            "convert it, for instance by `iconv -t UTF-8`"
        ) from None
    if not text.strip():
        raise ValueError(f"{path} contains no text ({len(content)} bytes): expected some; choose another file")
    return text
