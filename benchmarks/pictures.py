"""Time and peak memory of reading and writing large pictures, each in a process of its own.

    python benchmarks/pictures.py            # 12 megapixels in, 48 out, every format

Growth is the peak of the process's resident memory above what it was just before (Linux: VmHWM; ``getrusage`` would
answer with the parent's peak). For reading it includes the result: 144 MB of float32 for 12 megapixels.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import imagecodecs
import numpy as np
import PIL
import skimage.data

from rasr.images import Origin, Picture, read_picture, write_picture

CASES = [("jpg", 8), ("png", 8), ("webp", 8), ("tif", 8), ("png", 16), ("tif", 16)]
WIDE = {"whitepoint": [0.3127, 0.3290, 1], "primaries": [0.68, 0.32, 1, 0.265, 0.69, 1, 0.15, 0.06, 1], "gamma": 2.2}


def picture(width: int, height: int, bits: int, *, profile: bool) -> Picture:
    """A photo repeated to the size asked for, with sensor-like noise so that compression has work to do."""
    tile = skimage.data.astronaut().astype(np.float32) / 255
    pixels = np.tile(tile, (height // 512 + 1, width // 512 + 1, 1))[:height, :width].copy()
    noise = np.random.default_rng(0).normal(0, 0.01, (512, width, 3)).astype(np.float32)
    for top in range(0, height, 512):
        pixels[top : top + 512] += noise[: min(512, height - top)]
    np.clip(pixels, 0, 1, out=pixels)
    icc = bytes(imagecodecs.cms_profile("rgb", **WIDE)) if profile else None
    return Picture(pixels, origin=Origin(bits=bits, icc=icc))


def memory(field: str) -> float:
    """VmRSS (now) or VmHWM (highest since the last reset) of this process, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


def measure(action: str, file: Path, bits: int, *, profile: bool) -> None:
    """One case, in this process: prints seconds of processor time, growth in MB and the file's size in MB."""
    work = picture(8000, 6000, bits, profile=profile) if action == "write" else None
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of making the picture
    before, start = memory("VmRSS"), time.process_time()
    if work is not None:
        write_picture(work, file, bits=bits)
    else:
        read_picture(file)
    print(f"{time.process_time() - start:.2f} {memory('VmHWM') - before:.0f} {file.stat().st_size / 1e6:.1f}")


def main() -> None:
    """Run every case in a fresh process and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=4, metavar=("ACTION", "FILE", "BITS", "PROFILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        action, file, bits, profile = options.one
        measure(action, Path(file), int(bits), profile=profile == "True")
        return
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, Pillow {PIL.__version__},"
    )
    print(f"imagecodecs {imagecodecs.__version__}; processor seconds, growth of peak memory\n")
    print("| what | seconds | growth (MB) | file (MB) |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for extension, bits in CASES:
            for profile in (False, True) if extension == "jpg" or bits == 16 else (False,):
                name = f"{extension} {bits} bit" + (", Display P3" if profile else "")
                small = Path(folder) / f"in-{bits}-{profile}.{extension}"
                write_picture(picture(4000, 3000, bits, profile=profile), small, bits=bits)
                large = Path(folder) / f"out-{bits}-{profile}.{extension}"
                for action, file, size in (("read", small, "12 MP"), ("write", large, "48 MP")):
                    command = [sys.executable, __file__, "--one", action, str(file), str(bits), str(profile)]
                    result = subprocess.run(command, capture_output=True, text=True, check=True)
                    seconds, growth, megabytes = result.stdout.split()
                    print(f"| {action} {size} {name} | {seconds} | {growth} | {megabytes} |", flush=True)


if __name__ == "__main__":
    main()
