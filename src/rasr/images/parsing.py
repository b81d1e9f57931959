"""The boundary to parsers: one budget, one error, and nothing on the terminal."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from rasr.errors import OutOfMemory, PictureError, PictureTooLarge, RasrError

METADATA_BYTES = 64 * 2**20
"""What one file may hold beside its pixels, extended XMP with whole pictures in it included."""
ITEM_BYTES = 512
"""What a segment, chunk or directory entry counts beside its content: parsers walk them one by one, in Python."""

_warnings_lock = threading.Lock()


class Budget:
    """Bytes of metadata and structure that all parsers of one file may go through together."""

    def __init__(self, name: str, limit: int = METADATA_BYTES) -> None:
        self.name = name
        self._limit = self._left = limit

    def spend(self, amount: int) -> None:
        """Count ``amount`` bytes. Raises PictureTooLarge when the file holds more than the limit."""
        self._left -= amount
        if self._left < 0:
            raise PictureTooLarge(
                f"{self.name}: not read, it holds more than {self._limit >> 20} MiB of metadata or stray data beside "
                "the picture. Save it anew with another program if you trust it."
            )


@contextmanager
def parsing(name: str) -> Iterator[None]:
    """Turn whatever a parser raises on hostile bytes into one PictureError that names the file.

    Pillow, tifffile, libjpeg, libpng and libheif let a zoo of exceptions out of damaged files (struct.error,
    SyntaxError, ZeroDivisionError, ...), so this boundary is the one place that catches Exception.
    """
    try:
        yield
    except RasrError:
        raise
    except MemoryError as error:
        raise OutOfMemory(f"{name}: not enough memory to decode it.") from error
    except Image.DecompressionBombError as error:
        raise PictureTooLarge(f"{name}: not read, {error}.") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PictureError(f"{name}: damaged or truncated picture ({reason.rstrip('.')[:200]}).") from error


def printable(text: str) -> str:
    """Return a file's own words as they can be shown on a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def expect(consistent: bool, what: str = "header and content disagree") -> None:
    """Raise ValueError when two parts of a file contradict each other."""
    if not consistent:
        raise ValueError(what)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep parsers' warnings off the terminal; the lock is for ``catch_warnings``."""
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
