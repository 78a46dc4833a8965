"""How bright a picture is, where Pillow is installed (the extra `observations`)."""

from __future__ import annotations

import io
import warnings
from typing import Final

__all__ = ["brightness", "is_picture"]

_STARTS: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF", b"II*\x00", b"MM\x00*")
_PIXELS_MAX: Final = 50_000_000
_LOOKED_AT: Final = 64


def is_picture(data: bytes) -> bool:
    """Return whether bytes begin as PNG, JPEG, GIF, BMP, WebP or TIFF do."""
    return data.startswith(_STARTS)


def brightness(data: bytes) -> float | None:
    """Return a picture's mean luma (ITU-R BT.601), 0 for black to 1 for white; None for what is no sound picture.

    It is reduced to 64 pixels a side first: JPEG does that while it is read, at a fraction of the cost.

    Raises:
        ModuleNotFoundError: Pillow is not installed, and ``data`` begins as a picture does.
    """
    if not is_picture(data):
        return None
    from PIL import Image, ImageStat

    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as picture:
            warnings.simplefilter("ignore")  # of pictures that are odd, or large: their size is looked at here
            if picture.width * picture.height > _PIXELS_MAX:
                return None
            picture.draft("L", (_LOOKED_AT, _LOOKED_AT))
            small = picture.convert("L")
            small.thumbnail((_LOOKED_AT, _LOOKED_AT), Image.Resampling.BOX)
            return round(ImageStat.Stat(small).mean[0] / 255, 4)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None  # a file that is cut short or was never sound; Pillow raises SyntaxError for some
