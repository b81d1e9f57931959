"""Place the page's third-party files: fetched as package-lock.json says, checked, and only then written.

python page/place.py             # what the page needs; nothing is fetched where it lies already, whole
python page/place.py --tests     # what the tests of the page need as well
python page/place.py --optional  # say what is missing, and leave it

Needs neither node nor npm. The registry is npm's: npm_config_registry in the environment, or the line of an .npmrc.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import os
import re
import sys
import tarfile
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "src" / "rasr" / "service" / "page"
LIST = PAGE / "third_party.json"
"""Each file that is placed: package, version, licence, file in the package, file here, parts left out, sha256."""
FOLDERS = {False: PAGE / "third_party", True: HERE / "for_tests"}
PUBLIC = "https://registry.npmjs.org/"
LARGEST = 64 << 20
SECONDS = 60
BARE = {b'"preact"': b'"./preact.js"'}
"""Names of packages inside of the files, and the neighbours that a browser without an import map finds instead."""


class NotPlaced(Exception):
    """A file could not be fetched, or is not the one that the lock file or the list names."""


def registry() -> str:
    """Address of the registry that npm on this machine is set up for, with a slash at its end."""
    for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):
        if os.environ.get(name):
            return os.environ[name].rstrip("/") + "/"
    for file in (HERE / ".npmrc", Path.home() / ".npmrc", Path("/etc/npmrc"), Path("/usr/etc/npmrc")):
        for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
            key, _, value = line.partition("=")
            if key.strip() == "registry" and value.strip():
                return value.strip().rstrip("/") + "/"
    return PUBLIC


def listed() -> list[dict[str, Any]]:
    """Entries of the list."""
    entries: list[dict[str, Any]] = json.loads(LIST.read_text(encoding="utf-8"))
    return entries


def target(entry: dict[str, Any]) -> Path:
    """Where the file of an entry lies."""
    return FOLDERS[bool(entry.get("tests"))] / entry["file"]


def missing(*, tests: bool = False) -> list[dict[str, Any]]:
    """Entries whose file is absent or another."""
    wanted = [one for one in listed() if tests or not one.get("tests")]
    return [one for one in wanted if not target(one).is_file() or _sha256(target(one).read_bytes()) != one["sha256"]]


def place(*, tests: bool = False) -> list[Path]:
    """Fetch and write what is missing, and return it. Raises NotPlaced."""
    placed, packages = [], dict[str, dict[str, bytes]]()
    for entry in missing(tests=tests):
        name = entry["package"]
        if name not in packages:
            packages[name] = _unpacked(name)
        inside = entry["from"]
        if inside not in packages[name]:
            raise NotPlaced(f"{name} holds no file {inside}")
        data = packages[name][inside]
        for bare, neighbour in BARE.items() if inside.endswith(".mjs") else ():
            data = data.replace(b"from" + bare, b"from" + neighbour)
        for part in entry.get("without", ()):
            data = _without(data, part)
        if _sha256(data) != entry["sha256"]:
            raise NotPlaced(f"{inside} of {name} has sha256 {_sha256(data)}, but {LIST.name} says {entry['sha256']}")
        _write(target(entry), data)
        placed.append(target(entry))
    return placed


def _without(script: bytes, name: str) -> bytes:
    """A script of parts, each a function called at once, without the part that defines ``name``."""
    ends = b"}(OpenSeadragon);"
    parts = script.split(ends)
    wanted = re.compile(rb"^!function.*?\b\w\.%s=(function|class)\b" % name.encode(), re.DOTALL)
    kept = [one for one in parts if not wanted.match(one)]
    if len(kept) != len(parts) - 1:
        raise NotPlaced(f"{len(parts) - len(kept)} parts of a script define {name}, and not one")
    return ends.join(kept)


def _unpacked(name: str) -> dict[str, bytes]:
    """Files of a package by their path in it, after its archive was held against the lock file."""
    lock = json.loads((HERE / "package-lock.json").read_text(encoding="utf-8"))["packages"][f"node_modules/{name}"]
    address = f"{registry()}{name}/-/{name.rpartition('/')[2]}-{lock['version']}.tgz"
    try:
        with urllib.request.urlopen(address, timeout=SECONDS) as answer:  # noqa: S310 - npm's own registry
            archive = answer.read(LARGEST + 1)
    except OSError as error:
        raise NotPlaced(f"{address} could not be fetched: {error}") from error
    algorithm, _, expected = lock["integrity"].partition("-")
    if base64.b64encode(hashlib.new(algorithm, archive).digest()).decode() != expected:
        raise NotPlaced(f"{address} is not the file that package-lock.json names")
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as packed:
        members = [(one.name.partition("/")[2], packed.extractfile(one)) for one in packed if one.isfile()]
        return {path: file.read() for path, file in members if file is not None}


def _write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def main() -> int:
    """Place, say what was placed, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tests", action="store_true", help="Also what only the tests need.")
    parser.add_argument("--optional", action="store_true", help="Only say so when something cannot be fetched.")
    options = parser.parse_args()
    try:
        placed = place(tests=options.tests)
    except NotPlaced as error:
        sys.stderr.write(f"The page of 'rasr serve' lacks third-party files: {error}\n")
        return 0 if options.optional else 1
    for path in placed:
        sys.stdout.write(f"{path.relative_to(HERE.parent)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
