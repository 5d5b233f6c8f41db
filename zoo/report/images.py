"""Images as part of a page: no page grows beyond a size, whatever the run has drawn."""

import base64
import io
import re
from pathlib import Path

from PIL import Image

WIDEST = 1600  # pixels of a picture
LIMIT = 4_200_000  # bytes of all images of a page, which with the rest of it stays below 5 MB
DATA_URI = re.compile(r"data:image/(png|webp|gif|jpeg);base64,[A-Za-z0-9+/]+=*")


class Images:
    """Hands out images as long as they fit into a page.

    Args:
        limit: bytes of all of them.

    Attributes:
        left_out: how many did not fit.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.free, self.left_out = limit, 0
        self._known: set[str] = set()

    def take(self, uri: object) -> str:
        """The image of a gallery; "" if it does not fit, or is anything else than an image."""
        if not isinstance(uri, str) or not DATA_URI.fullmatch(uri):
            return ""
        if len(uri) > self.free:
            self.left_out += 1
            return ""
        self.free -= len(uri)
        return uri

    def picture(self, path: Path) -> str:
        """A picture that a callback has drawn, compressed; "" if it does not fit, or is no picture."""
        try:
            content, kind = path.read_bytes(), "gif"
            if path.suffix != ".gif":
                content, kind = _compressed(content), "webp"
        except (OSError, ValueError):
            return ""
        return self.take(f"data:image/{kind};base64,{base64.b64encode(content).decode()}")


def _compressed(content: bytes) -> bytes:
    with Image.open(io.BytesIO(content)) as file:
        picture = file.convert("RGB")
    picture.thumbnail((WIDEST, 100 * WIDEST))
    memory = io.BytesIO()
    picture.save(memory, "WEBP", quality=88, method=4)
    return memory.getvalue()
