"""Reading and writing files: one rule for where a file is looked for, and new files that are complete or absent.

Everything that takes a path from the user uses `find_file`, and everything that writes a file uses `atomic_write`.
"""

import glob
import os
import platform
import re
from collections.abc import Iterator
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
        OSError: if the file cannot be written; an older file of this name stays as it was.
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
        if not isinstance(cause, OSError):
            raise
        raise OSError(
            f"{path} could not be written ({cause.strerror or cause}), and an older file of this name stays as it was: "
            "expected a writable folder with enough space; free some space, or choose another folder"
        ) from cause
    finally:
        with suppress(OSError):  # it does not exist if all went well, or if it could not be created
            temporary.unlink()


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


def read_image(path: str | Path, mode: str = "RGB") -> Image.Image:
    """Reads an image file, turned upright, in PIL mode `mode` ("RGB" or "L"); transparent parts become white.

    Raises:
        ValueError: if PIL cannot read the file as an image.
        FileNotFoundError: if the file does not exist.
    """
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):  # 16 bits, which PIL would clip at 255
                image = Image.fromarray((np.asarray(image) / 257).clip(0, 255).astype(np.uint8))
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
