"""Which image files annotations belong to: by their names, in a given folder or in those near the annotations."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from datamodules.io import IMAGE_SUFFIXES, user_files, user_folders
from datamodules.splits import split_in_parts

ANNOTATION_FOLDERS = ("annotations", "annotation")  # in lower case
IMAGE_FOLDERS = ("jpegimages", "images", "image")  # likewise
OTHER_SUFFIXES = {".heic", ".heif", ".jxl"}  # of images that are annotated in one format and kept in another
TRIED = 20  # names of images, to find the folder that holds them
DEPTH = 2  # levels of folders below that of the annotations in which images are looked for
GIVE_IMAGES = "give the folder of the images by --images (zoo anchors), --data.images (zoo fit own/boxes) or `images`"


def folders_named(folder: Path, names: Sequence[str]) -> list[Path]:
    """The folders in a folder with one of these names, which are in lower case, and whatever case the folders have."""
    folders = user_folders(folder) if folder.is_dir() else []
    return [path for name in names for path in folders if path.name.lower() == name]


class ImagesOf:
    """The images of some folders, each of which is listed once, as annotations name them.

    Args:
        folders: of the images.
        names: what annotations call the images. If one of those with a path leads to a file, all are meant as written.
    """

    def __init__(self, *folders: Path, names: Iterable[str] = ()) -> None:
        self.folders, self.names = folders, names

    @cached_property
    def _called(self) -> dict[str, list[Path]]:
        """The images by name and by stem, in their own letters and as `_folded`."""
        found = defaultdict(list)
        for folder in self.folders:
            for path in user_files(folder, IMAGE_SUFFIXES, deep=False):
                for key in {path.name, path.stem, _folded(path.name), _folded(path.stem)}:
                    found[key].append(path)
        return found

    @property
    def is_filled(self) -> bool:
        """Whether there is an image at all."""
        return bool(self._called)

    @cached_property
    def _paths_count(self) -> bool:
        return any("/" in name and self._exact(name) is not None for name in map(_cleaned, self.names))

    def _exact(self, name: str) -> Path | None:
        return next((folder / name for folder in self.folders if (folder / name).is_file()), None)

    def find(self, name: str, stem: str = "") -> Path:
        """The image that an annotation is of, which need not exist.

        Args:
            name: what the annotation calls it, whatever the path or suffix it was annotated with.
            stem: of the annotation's own file, if there is one for each image. It decides, as names inside of files
                are often those of other folders or of before a renaming; the name is used where no image has the stem.

        Raises:
            ValueError: if several folders hold an image of this name.
        """
        name = _cleaned(name)
        file = Path(name)
        if stem and (own := self._like(stem, prefer=file.suffix)) is not None:
            return own
        if name and (exact := self._exact(name)) is not None:
            return exact
        if not name or ("/" in name and self._paths_count):
            return self.folders[0] / (name or stem)
        is_suffix = file.suffix.lower() in IMAGE_SUFFIXES | OTHER_SUFFIXES
        return self._like(file.name) or (self._like(file.stem) if is_suffix else None) or self.folders[0] / file.name

    def _like(self, name: str, prefer: str = "") -> Path | None:
        """The image of this name or stem; of several that with the preferred suffix, else the first."""

        def rank(path: Path) -> tuple[bool, bool, bool, str]:
            return path.name != name, path.stem != name, path.suffix != prefer, path.name

        found = self._called.get(name) or self._called.get(_folded(name)) or []
        best = min(found, key=rank, default=None)
        if best and (others := [path for path in found if rank(path) == rank(best) and path != best]):
            raise ValueError(f"{best} and {others[0]} are both called {name}: expected one; {GIVE_IMAGES}")
        return best

    def count(self, names: Iterable[str]) -> int:
        """How many images these names lead to; two names that lead to the same one count once."""
        return sum(path is not None and path.is_file() for path in {*self.found(names)})

    def found(self, names: Iterable[str]) -> Iterator[Path | None]:
        """The image of each of these names, or None if there are several."""
        for name in names:
            try:
                yield self.find(name)
            except ValueError:
                yield None


def _cleaned(name: str) -> str:
    """A name as a relative path or the end of one: with slashes, of an address only the path."""
    return urlsplit(name).path.lstrip("/") if "://" in name else name.replace("\\", "/")


def _folded(name: str) -> str:
    """Equal for names that differ in case only, or in how a letter with an accent is stored, as between systems."""
    return unicodedata.normalize("NFC", name).casefold()


def images_for(annotations: Path, names: Sequence[str], given: Path | None = None) -> ImagesOf:
    """The images that annotations name: those of the folder that holds most of them, or of several if they are spread.

    Looked at are the given folder, else that of the annotations and, of `annotations/`, the one above; then folders in
    these called `images` and the like; then all folders below. The nearest that holds all decides. If the file, or a
    folder of `annotations/`, is named after a split, folders of other splits are left out.

    Args:
        annotations: their file, or their folder if there is a file for each image.
        names: what they call the images; `TRIED` of them are tried.
        given: folder of the images, if it is known.

    Raises:
        ValueError: if different images of these names are in two folders that are equally near.
    """
    own = annotations if annotations.is_dir() else annotations.parent
    bases = [own, *(place.parent for place in (own, own.parent) if place.name.lower() in ANNOTATION_FOLDERS)]
    split = _split_of(annotations, bases[-1:])
    bases = [given] if given else bases
    level = [*(folder for base in bases for folder in folders_named(base, IMAGE_FOLDERS)), *bases]
    some = names[:: max(1, len(names) // TRIED)]
    searched: dict[Path, ImagesOf] = {}
    best, most = ImagesOf(bases[0]), (0, False)
    for depth in range(1 + DEPTH):
        nearest = {folder: ImagesOf(folder, names=some) for folder in level if folder not in searched}
        searched |= nearest
        counts = {
            folder: (images.count(some), split is not None and _split_of(folder, bases) == split)
            for folder, images in nearest.items()
        }
        if (highest := max(counts.values(), default=most)) > most and highest[0]:
            best, *others = (images for folder, images in nearest.items() if counts[folder] == highest)
            most, paths = highest, [*best.found(some)]
            if other := next((images for images in others if _differ(paths, images.found(some))), None):
                raise ValueError(
                    f"{annotations} names images that are in {best.folders[0]} and also in {other.folders[0]}: "
                    f"expected one folder; {GIVE_IMAGES}"
                )
        if most[0] == len(some) and (split is None or most[1] or depth):
            return best
        below = [folder for place in nearest for folder in _folders(place)]
        level = [folder for folder in below if split is None or _split_of(folder, bases) in (None, split)]
    spread = ImagesOf(*searched, names=some)
    if spread.count(some) > most[0]:
        return spread
    return best if most[0] else next((images for images in searched.values() if images.is_filled), best)


def _differ(paths: Iterable[Path | None], others: Iterable[Path | None]) -> bool:
    """Whether one name leads to two different images that exist."""
    pairs = zip(paths, others, strict=True)
    return any(one and other and one != other and one.is_file() and other.is_file() for one, other in pairs)


def _folders(folder: Path) -> list[Path]:
    with suppress(OSError):  # those of others beside the user's own, as in /tmp
        return user_folders(folder)
    return []


def _split_of(path: Path, bases: list[Path]) -> str | None:
    """The split after which a file or folder, or a folder between it and the base that contains it, is named."""
    base = next(base for base in bases if path.is_relative_to(base))
    parts = [*path.relative_to(base).parts[:-1], path.stem] if path != base else []
    return split_in_parts(parts)
