"""Weights in one place: no other code opens a weight file or asks the network for one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import rasr

ROOT = Path(rasr.__file__).parent
CLIENTS = {"urllib.request", "http.client", "requests", "httpx", "httpx2", "aiohttp", "socket"}
READERS = {"safetensors", "pickle", "torch.hub", "torch.jit"}
CALLS = {
    *("hf_hub_download", "snapshot_download", "try_to_load_from_cache", "model_info", "load_state_dict_from_url"),
    *("safe_open", "load_file", "get_model_file_path", "urlopen", "urlretrieve", "download_url_to_file"),
}
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".pkl", ".ckpt")
EXCEPTIONS = {
    "dataset/web.py: httpx2",  # photos: the only other client of the network
    "dataset/web.py: urllib.request",  # the system's proxies
    "dataset/addresses.py: httpx2",
    "dataset/addresses.py: socket",  # names resolved, then checked
    "dataset/review.py: socket",  # a page on this machine
    "service/server.py: socket",  # listens on this machine
    "child.py: socket",  # a pair of them, between processes of this machine
    "ray_client.py: socket",  # whether the head node answers at all
    "generator/stable_diffusion.py: from_pretrained of CLIPTokenizer",  # words and numbers, no weights
}


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def offences(tree: ast.AST) -> Iterator[str]:
    """What only the weights room may do."""
    for name in imports(tree):
        if name in CLIENTS | READERS | {"huggingface_hub"} or name.startswith(("safetensors.", "huggingface_hub.")):
            yield name.partition(".")[0] if name.startswith(("safetensors", "huggingface_hub")) else name
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        if called in CALLS:
            yield called
        elif called == "from_pretrained" or (called == "load" and owner in {"torch", "pickle"}):
            yield f"{called} of {owner}"
        elif called in {"open", "read_bytes", "fromfile", "memmap"}:
            named = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
            yield from (f"{called} of {name}" for name in named if isinstance(name, str) and name.endswith(SUFFIXES))


def test_only_the_weights_room_opens_and_downloads_weights() -> None:
    found = set()
    for path in ROOT.rglob("*.py"):
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith("weights/"):
            found |= {f"{name}: {offence}" for offence in offences(ast.parse(path.read_text(encoding="utf-8")))}
    assert found == EXCEPTIONS


def test_the_check_sees_what_it_looks_for() -> None:
    seen = {
        name
        for path in (ROOT / "weights").glob("*.py")
        for name in offences(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert seen >= {"safetensors", "pickle", "huggingface_hub", "urllib.request", "load of torch", "model_info"}
    assert {*offences(ast.parse("open('x.pth'); Path('a.bin').read_bytes()"))} == {
        "open of x.pth",
        "read_bytes of a.bin",
    }


def test_weights_import_nothing_from_further_down() -> None:
    above = ("rasr.errors", "rasr.files", "rasr.object_path", "rasr.progress", "rasr.weights")
    for path in (ROOT / "weights").glob("*.py"):
        for name in imports(ast.parse(path.read_text(encoding="utf-8"))):
            assert not name.startswith("rasr") or name.startswith(above), f"{path.name} imports {name}"
