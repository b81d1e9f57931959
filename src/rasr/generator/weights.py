"""Reading and writing weight files so that nothing in them can run, and every failure is a sentence."""

from __future__ import annotations

import os
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rasr.errors import OutputError, WeightsCorrupt, WeightsMissing

if TYPE_CHECKING:
    import torch

__all__ = ["load_strictly", "read_checkpoint", "read_safetensors", "require_match", "write_safetensors"]

MAX_PROGRAM = 16 * 2**20
"""Bytes of pickle in a checkpoint, tensors not counted. OSEDiff's is well under 1 MB."""


def read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file, on the CPU. Raises WeightsMissing or WeightsCorrupt."""
    from safetensors import SafetensorError, safe_open

    _require(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise WeightsCorrupt(f"{path} is not a readable safetensors file ({error}). Get it again.") from error


def write_safetensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> Path:
    """Write atomically: a reader sees the old file or the new one. Raises OutputError."""
    from safetensors.torch import save

    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, dict(metadata))
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise OutputError(f"Cannot write {path}: {error.strerror or error}.") from error
    return path


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A ``torch.save`` dictionary of tensors, lists and numbers, read with ``weights_only=True``.

    Files that ask for anything else (code, classes), that are not torch's zip format, that are compressed (torch never
    does, and a small file could unfold without bounds) or whose pickle is far larger than a list of names needs to be
    are refused before unpickling. Raises WeightsMissing or WeightsCorrupt.
    """
    import pickle

    import torch

    _require(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        program = sum(member.file_size for member in members if member.filename.endswith(".pkl"))
        if any(member.compress_type != zipfile.ZIP_STORED for member in members) or program > MAX_PROGRAM:
            raise WeightsCorrupt(f"{path} is not an ordinary checkpoint (compressed, or with an oversized pickle).")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols: what is not understood raises below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except zipfile.BadZipFile as error:
        raise WeightsCorrupt(f"{path} is truncated or not a torch checkpoint. Get it again.") from error
    except (pickle.UnpicklingError, RuntimeError, OSError, ValueError, EOFError, KeyError, TypeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsCorrupt(f"{path} was not loaded: {first} Nothing in it was executed.") from error
    if not isinstance(content, dict):
        raise WeightsCorrupt(f"{path} holds a {type(content).__name__}, not a dictionary of weights.")
    return content


def load_strictly(into: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Copy ``tensors`` into the live tensors ``into`` when names and shapes match exactly.

    Otherwise raise WeightsCorrupt and leave them as they were. ``path`` is named in the message.
    """
    import torch

    require_match({name: tuple(t.shape) for name, t in into.items()}, tensors, path)
    with torch.no_grad():
        for name, tensor in into.items():
            tensor.copy_(tensors[name])


def require_match(shapes: Mapping[str, tuple[int, ...]], tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Raise WeightsCorrupt unless ``tensors`` has exactly these names and shapes."""
    missing, extra = sorted(shapes.keys() - tensors.keys()), sorted(tensors.keys() - shapes.keys())
    wrong = sorted(name for name in shapes.keys() & tensors.keys() if shapes[name] != tuple(tensors[name].shape))
    for what, names in (("lacks", missing), ("has an unknown", extra), ("has a wrong shape for", wrong)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise WeightsCorrupt(f"{path} is for another architecture: it {what} {names[0]}{more}.")


def _require(path: Path) -> None:
    if not path.is_file():
        raise WeightsMissing(f"There is no weights file {path}.")
