"""Mutated pictures, thousands of them, in a process of its own: ``python -m tests.images.mutants FOLDER FIRST COUNT``.

FOLDER holds the pictures to start from. What is mutated how depends on the number alone, so that a failure can be made
again by its number. Prints one JSON object; ends otherwise only by a crash, by an error that is not of the PictureError
family, or by a file that takes longer than the limit.
"""

from __future__ import annotations

import faulthandler
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from rasr.errors import PictureError
from rasr.images import Limits, encode_picture, read_header, read_picture

LIMITS = Limits(max_pixels=4_000_000, max_frames=100)
SECONDS = 30
TELLING = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFE, 0xFF)
NUMBERS = (0, 1, 0xFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


def mutate(data: bytes, others: list[bytes], random: np.random.Generator) -> bytes:
    """One to four changes: bits, bytes, numbers, blocks dropped, doubled, zeroed or taken from another, cut ends."""
    out = bytearray(data)
    for _ in range(random.integers(1, 5)):
        # Headers and directories are where the parsers are: half of the changes go to the first kilobyte.
        place = int(random.integers(0, max(1, min(len(out), 1024 if random.random() < 0.5 else len(out)))))
        length = int(random.integers(1, 1 + min(4096, max(1, len(out) // 4))))
        match random.integers(0, 9):
            case 0 | 1:
                out[place : place + 1] = bytes([out[place] ^ 1 << int(random.integers(0, 8))]) if out else b""
            case 2:
                out[place : place + 1] = bytes([int(random.choice(TELLING))])
            case 3:
                size, order = int(random.choice([2, 4])), random.choice(["big", "little"])
                out[place : place + size] = (int(random.choice(NUMBERS)) % (1 << 8 * size)).to_bytes(size, str(order))  # type: ignore[arg-type]  # one of two
            case 4:
                del out[place : place + length]
            case 5:
                out[place:place] = out[place : place + length]
            case 6:
                out[place : place + length] = bytes(min(length, len(out) - place))
            case 7:
                other = others[int(random.integers(0, len(others)))]
                start = int(random.integers(0, len(other)))
                out[place : place + length] = other[start : start + length]
            case _:
                del out[int(random.integers(0, len(out) + 1)) :]
    return bytes(out)


def peak() -> int:
    """Megabytes this process has ever had resident."""
    return int(Path("/proc/self/status").read_text(encoding="ascii").split("VmHWM:")[1].split()[0]) // 1024


def main(folder: str, first: str, count: str) -> None:
    """Read mutants ``first`` to ``first + count``; a result is written as PNG too."""
    faulthandler.enable()
    files = sorted(Path(folder).iterdir())
    contents = [file.read_bytes() for file in files]
    for content in contents:
        read_picture(content, limits=LIMITS)
    outcomes: Counter[str] = Counter()
    before = peak()
    for number in range(int(first), int(first) + int(count)):
        random = np.random.default_rng(number)
        data = mutate(contents[number % len(files)], contents, random)
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        try:
            header = read_header(data, limits=LIMITS)
            picture = read_picture(data, limits=LIMITS)
            if header.format != "HEIF":  # libheif lets the coded size differ, up to 256 × 256
                assert (picture.width, picture.height) == (header.width, header.height)
            assert np.isfinite(picture.pixels).all()
            encode_picture(picture, "PNG")
            outcomes["read, with notes" if picture.notes else "read"] += 1
        except PictureError as error:
            outcomes[type(error).__name__] += 1
        except BaseException:
            sys.stderr.write(f"mutant {number} of {files[number % len(files)].name}\n")
            raise
        faulthandler.cancel_dump_traceback_later()
    sys.stdout.write(json.dumps({"outcomes": outcomes, "growth": peak() - before}))


if __name__ == "__main__":
    main(*sys.argv[1:])
