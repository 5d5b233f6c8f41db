"""Reading and writing files: one rule for where a file is looked for, and new files that are complete or absent.

Everything that takes a path from the user uses `find_file`, and everything that writes a file uses `atomic_write`.
"""

import glob
import os
import platform
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import parent_process
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from datamodules.messages import report

IMAGE_SUFFIXES = {  # of what PIL reads, the formats that people keep pictures in
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".webp", ".avif", ".tif", ".tiff", ".jp2", ".j2k"),
    *(".bmp", ".dib", ".tga", ".ppm", ".pgm", ".pbm", ".pnm"),
}
LITTER = {  # in lower case: folders and files that macOS, Windows, Linux and network drives add
    *("__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "lost+found"),
    *("@eadir", "#recycle", "__pycache__"),
}


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
    return not name.startswith(".") and name.lower() not in LITTER


def user_folders(folder: Path) -> list[Path]:
    """The folders in a folder that a person put there, sorted; see `user_files`."""
    return sorted(path for path in folder.iterdir() if is_users(path.name) and path.is_dir())


def user_images(folder: Path) -> tuple[list[Path], Counter[str]]:
    """The images among the files of a folder, at any depth, and the suffixes of the other files; see `user_files`.

    Files without a suffix are images if PIL knows their format.
    """
    images, others = [], Counter[str]()
    for path in user_files(folder):
        suffix = path.suffix.lower()
        if suffix in IMAGE_SUFFIXES or (not suffix and _is_image(path)):
            images.append(path)
        else:
            others[suffix or "without suffix"] += 1
    return images, others


def _is_image(path: Path) -> bool:
    try:
        with Image.open(path):
            return True
    except Image.DecompressionBombError:
        return True
    except (OSError, SyntaxError, ValueError):
        return False


def read_image(
    path: str | Path, mode: str = "RGB", upright: bool = True, at_least: tuple[int, int] | None = None
) -> Image.Image:
    """Reads an image file in PIL mode `mode` ("RGB" or "L"); transparent parts become white.

    Values of more than 8 bits are scaled by what the type of the file can hold, never by what one image happens to
    hold: white is 65535 in 16 bits and 4095 in 12 bits. Floats are in 0..1, or else in 0..255.

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
            stored = str(file.tile[:1])  # holds how the pixels are stored, such as "RGB;16B"
            is_deep = file.mode.startswith("I") or ";16" in stored or "65535" in stored
            image = ImageOps.exif_transpose(file) if upright else file
            if image.mode.startswith(("I", "F")):  # more than 8 bits, which PIL would clip
                image = Image.fromarray(_to_uint8(np.asarray(image), stored))
            if is_deep:
                _tell_of_dark(path, image)
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


def image_size(path: str | Path, upright: bool = True) -> tuple[int, int]:
    """Width and height of the image that `read_image` returns, without decoding it.

    Raises:
        ValueError, FileNotFoundError: as `read_image`.
    """
    (width, height), orientation = image_header(path)
    return (height, width) if upright and orientation >= 5 else (width, height)


def image_header(path: str | Path) -> tuple[tuple[int, int], int]:
    """Width and height of an image file as it is stored, and its EXIF orientation, 1 to 8; 1 is upright.

    Raises:
        ValueError, FileNotFoundError: as `read_image`.
    """
    try:
        with Image.open(path) as file:
            # PIL turns a TIFF itself, and would decode a whole PNG to look for a tag after the pixels.
            is_upright = file.format == "TIFF" or (file.format == "PNG" and "exif" not in file.info)
            orientation = 1 if is_upright else file.getexif().get(0x0112, 1)
            return file.size, orientation if orientation in range(1, 9) else 1
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist: expected an image file; check the path") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{path} cannot be read as an image ({error}): expected a complete JPEG, PNG or similar file; "
            "convert it, or remove it"
        ) from None


def _to_uint8(values: np.ndarray, stored: str) -> np.ndarray:
    """Gray values of more than 8 bits -> uint8, by the range of how they are stored; see `read_image`.

    Integers of 32 bits may be in 0..255, and floats in 0..1 may exceed 1 a little, as after a resize.

    Raises:
        ValueError: for other values.
    """
    ranges = (4095.0,) if ";12" in stored else (255.0, 65535.0) if ";32" in stored else (65535.0,)
    if np.issubdtype(values.dtype, np.floating):
        ranges = (1.0, 255.0)
    low, high = float(values.min()), float(values.max())
    top = next((limit for limit in ranges if high <= max(limit, 2)), None)
    if low < 0 or top is None or not np.isfinite(values).all():
        wanted = " or ".join(f"0..{limit:g}" for limit in ranges)
        raise ValueError(f"it has values from {low:g} to {high:g}: expected {wanted}")
    return (values.astype(np.float64) / top * 255).round().clip(max=255).astype(np.uint8)


_told_dark: list[str | Path] = []  # of the first such image; worker processes say nothing


def _tell_of_dark(path: str | Path, image: Image.Image) -> None:
    """Says that an image of 16 bits is all but black, which most often holds 12 or 8 bits."""
    highest = np.asarray(image.convert("RGB")).max()  # without the transparency
    if highest <= 16 and not _told_dark and parent_process() is None:
        _told_dark.append(path)
        report(
            f"{path}, and perhaps others, has 16 bits, where 65535 is white, but its values are below a tenth of that: "
            "it is seen as almost black; if its white is 4095 or 255, save it anew with values 16 or 257 times as high"
        )


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
