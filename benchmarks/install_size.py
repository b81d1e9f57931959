"""Megabytes that ``pip install`` of a checkout puts on the disk, in total and by package.

    python benchmarks/install_size.py                     the checkout beside this script
    python benchmarks/install_size.py ../old --top 40
    python benchmarks/install_size.py --extras train,heic --limit 1650     exit 1 when it is more

Installs with the checkout's constraints.txt into a new virtual environment in a temporary folder (not editable, no
extras unless asked), as a user would; minutes, and needs the package index or a mirror. The total is the environment's,
pip and setuptools included; a package's size is that of the files it installed, as its RECORD lists them, byte code
included. Megabytes are what ``du -sm`` shows: 2**20 bytes of disk, in whole blocks.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

MEASURE = """
import importlib.metadata, json, os, pathlib, sys
def size(path):
    return os.lstat(path).st_blocks * 512 if os.path.lexists(path) else 0
packages = {}
for distribution in importlib.metadata.distributions():
    files = [pathlib.Path(distribution.locate_file(file)) for file in distribution.files or ()]
    packages[f"{distribution.metadata['Name']} {distribution.version}"] = (
        sum(map(size, files)),
        sorted({need.partition(";")[0].strip() for need in distribution.requires or () if "extra ==" not in need}),
    )
print(json.dumps(packages))
"""


def total(folder: Path) -> int:
    """Bytes of disk that ``folder`` takes; links are not followed."""
    return sum(
        os.lstat(Path(place, name)).st_blocks * 512
        for place, folders, files in os.walk(folder)
        for name in (*folders, *files)
    )


def main() -> int:
    """Install, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", nargs="?", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--extras", default="", help="extras to install, too, comma-separated")
    parser.add_argument("--python", default=sys.executable, help="interpreter that makes the environment")
    parser.add_argument("--top", type=int, default=25, help="packages to print  [25]")
    parser.add_argument("--limit", type=float, help="exit 1 when the total is more megabytes than this")
    options = parser.parse_args()
    checkout = options.checkout.resolve()
    wanted = f"{checkout}[{options.extras}]" if options.extras else str(checkout)
    with tempfile.TemporaryDirectory() as name:
        subprocess.run([options.python, "-m", "venv", name], check=True)
        python = Path(name, "bin", "python")
        install = [python, "-m", "pip", "install", "--quiet", "-c", checkout / "constraints.txt", wanted]
        subprocess.run(list(map(str, install)), check=True, stderr=subprocess.DEVNULL)
        packages = json.loads(
            subprocess.run([python, "-c", MEASURE], check=True, capture_output=True, text=True).stdout
        )
        megabytes = total(Path(name)) / 2**20
    for package, (size, _) in sorted(packages.items(), key=lambda entry: -entry[1][0])[: options.top]:
        users = [
            other.split()[0] for other, (_, needs) in packages.items() if _name(package.split()[0]) in map(_name, needs)
        ]
        print(f"{size / 2**20:>9.1f} MB  {package:<36} needed by {', '.join(sorted(users)) or '-'}")
    print(f"{megabytes:>9.1f} MB  in total, {len(packages)} packages: pip install {wanted}")
    print(f"{platform.machine()}, Python {platform.python_version()}")
    return 1 if options.limit is not None and megabytes > options.limit else 0


def _name(requirement: str) -> str:
    """A requirement's package, as package indexes spell it."""
    end = next((place for place, c in enumerate(requirement) if not (c.isalnum() or c in "-_.")), len(requirement))
    return requirement[:end].lower().replace("_", "-").replace(".", "-")


if __name__ == "__main__":
    raise SystemExit(main())
