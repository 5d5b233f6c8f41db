"""Makes the figures of the studies small enough to be kept in the repository, as docs/studies/NAME.webp.

    python docs/thumbnails.py FOLDER

FOLDER holds what the studies wrote, by default `runs/studies`. Then `zoo results` puts them on the page of the studies.
"""

import argparse
import io
from pathlib import Path

from PIL import Image

from datamodules.io import atomic_write

WIDTH, LEAST = 1200, 1000  # pixels of the widest figure, and below which captions could no longer be read
MAX_BYTES = 40_000  # of a file that is wider than that
QUALITIES = (90, 75, 60, 48)  # tried in this order at each width


def small(image: Image.Image) -> bytes:
    """A figure as WebP. To get it to `MAX_BYTES` first the quality is lowered, then the width, not below `LEAST`."""
    width = min(WIDTH, image.width)
    while True:
        resized = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
        for quality in QUALITIES:
            file = io.BytesIO()
            resized.save(file, "WEBP", quality=quality, method=6)
            if file.tell() <= MAX_BYTES:
                return file.getvalue()
        if width <= LEAST:
            return file.getvalue()
        width = max(LEAST, width * 7 // 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs/studies"))
    out = Path(__file__).parent / "studies"
    out.mkdir(exist_ok=True)
    for path in sorted(parser.parse_args().folder.glob("*.png")):
        with Image.open(path) as image:
            content = small(image.convert("RGB"))
        with atomic_write(out / f"{path.stem}.webp") as file:
            file.write_bytes(content)
        print(f"{path.stem}.webp  {len(content) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
