"""Image files and encoded bytes to pixels; whatever cannot be decoded is an error that names it."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import UserError

#: Endings of files that are taken for images.
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")

#: Image modes of Pillow by number of channels.
MODES = {1: "L", 3: "RGB"}


def decode_image(source: Path | bytes, where: str, channels: int = 3) -> Any:
    """Return a decoded ``PIL.Image.Image`` of 8 bits, grey (1 channel) or RGB (3).

    Images of 16 bits are brought to 8 (the upper ones), transparency is left away.

    Args:
        source: a file, or its bytes.
        where: how messages name it.
        channels: 1 or 3.

    Raises:
        UserError: it is missing, no image, cut short, damaged, too large, or of values that 8 bits cannot hold.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        stream: Any = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(stream) as image:
            image.load()
            return convert_image(image, where, channels)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{where}: no such file; check the path") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{where}: is no image that Pillow can read; replace or remove it") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{where}: {error}; make it smaller or remove it") from error
    except PermissionError as error:
        raise UserError(f"{where}: no permission to read it; change its mode or copy it") from error
    # What Pillow's decoders raise for damaged files.
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{where}: is cut short or damaged ({reason}); replace or remove it") from error


def convert_image(image: Any, where: str, channels: int) -> Any:
    """Return an image in grey (1 channel) or RGB (3), 8 bits; see :func:`decode_image`."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise UserError(f"{where}: has values of 32 bits; convert it to an image of 8 or 16 bits")
    mode = MODES[channels]
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.copy() if image.mode == mode else image.convert(mode)
