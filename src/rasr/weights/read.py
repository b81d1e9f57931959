"""Weight files read so that nothing in them can run, loaded strictly, written atomically.

Every failure is one sentence that names the file: WeightsMissing, or WeightsCorrupt for a file that is damaged, of
another architecture, or wants to run code. Packaged files are held to the catalogue's hash by every reader.
"""

from __future__ import annotations

import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from rasr.errors import WeightsCorrupt, WeightsMissing
from rasr.files import os_errors_as_output, write_bytes
from rasr.weights.locate import variant, verify

if TYPE_CHECKING:
    import torch

    Network = TypeVar("Network", bound=torch.nn.Module)

_MAX_PROGRAM = 16 * 2**20
"""Bytes of pickle in a checkpoint, tensors not counted. OSEDiff's is well under 1 MB."""
_LEGACY_PICKLES = 5
"""Of torch's format before 1.6: two numbers, the machine, the content, the list of storages. Then come the tensors."""


def read_metadata(path: Path) -> dict[str, str]:
    """Metadata of a safetensors file, without torch. Raises WeightsMissing or WeightsCorrupt."""
    return read_safetensors(path, "numpy", tensors=False)[1]


def read_safetensors(
    path: Path, framework: Literal["pt", "numpy"] = "pt", *, tensors: bool = True
) -> tuple[dict[str, Any], dict[str, str]]:
    """Tensors on the CPU (or numpy arrays, without torch) and metadata. Raises WeightsMissing or WeightsCorrupt.

    Without ``tensors`` none is read.
    """
    from safetensors import SafetensorError, safe_open

    _require(path)
    try:
        with safe_open(path, framework=framework) as file:
            names = file.keys() if tensors else ()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
        # The last three: number formats that torch or numpy do not have. What is quoted may be a stranger's, and long.
        first = str(error).partition("\n")[0][:200]
        raise WeightsCorrupt(f"{path} is not a readable safetensors file ({first}). Get it again.") from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Dictionary of tensors, lists and numbers from ``torch.save``, read with ``weights_only=True``.

    Files that ask for anything else (code, classes), that are compressed (torch never does, and a small file could
    unfold without bounds) or whose pickle is far larger than a list of names needs to be are refused before unpickling.
    Raises WeightsMissing or WeightsCorrupt.
    """
    import torch

    _require(path)
    try:
        unusual = not _is_ordinary(path)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise WeightsCorrupt(f"{path} is truncated or not a torch checkpoint. Get it again.") from error
    if unusual:
        raise WeightsCorrupt(f"{path} is not an ordinary checkpoint (compressed, or with an oversized pickle).")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols: what is not understood raises below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, ValueError, EOFError, KeyError, TypeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsCorrupt(f"{path} was not loaded: {first} Nothing in it was executed.") from error
    if not isinstance(content, dict):
        raise WeightsCorrupt(f"{path} holds a {type(content).__name__}, not a dictionary of weights.")
    return content


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Named tensors of a safetensors file or a checkpoint, also where a trainer wrapped them. Raises as the others."""
    if path.suffix == ".safetensors":
        return read_safetensors(path)[0]
    state = read_checkpoint(path)
    for wrapper in ("params", "params_ema", "state_dict"):
        state = state.get(wrapper, state)
    return {name: tensor for name, tensor in state.items() if hasattr(tensor, "shape")}


def load_strictly(into: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Copy ``tensors`` into the live tensors ``into`` when names and shapes match exactly.

    Otherwise raise WeightsCorrupt, which names ``path``, and leave them as they were.
    """
    import torch

    _require_match(into, tensors, path)
    with torch.no_grad():
        for name, tensor in into.items():
            tensor.copy_(tensors[name])


def fill_model(model: Network, tensors: dict[str, torch.Tensor], path: Path, *, ignore_extra: bool = False) -> Network:
    """Give a model laid out on the meta device its tensors, in its own number formats, and return it frozen.

    ``tensors`` is emptied on the way, so that none is held twice. Raises WeightsCorrupt as :func:`load_strictly` does;
    ``ignore_extra`` passes over tensors the model has no use for.
    """
    wanted = model.state_dict()
    _require_match(wanted, tensors, path, ignore_extra=ignore_extra)
    model.load_state_dict({name: tensors.pop(name).to(wanted[name].dtype) for name in wanted}, assign=True)
    return model.eval().requires_grad_(requires_grad=False)


def load_pretrained(family: Any, folder: Path, *, ignore_extra: bool = False, **options: Any) -> Any:
    """Model of a transformers class from config.json and safetensors in a folder, silently, strictly, in fp32.

    Raises WeightsCorrupt when the file does not fill the model, or has more than it (unless ``ignore_extra``).
    """
    from transformers.utils import logging

    path = variant(folder, "model.safetensors")
    if "fp16" in path.name:
        options["variant"] = "fp16"
    complaint = f"{path} does not hold the {family.__name__} that config.json beside it describes"
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()  # transformers draws one on stderr even for a file on disk
    try:
        network, report = family.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **options
        )
    except MemoryError:
        raise
    except Exception as error:  # a bad file surfaces as any of a dozen kinds, some private to the libraries
        raise WeightsCorrupt(f"{complaint}: {str(error).strip().partition(chr(10))[0]}") from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
    # Tensors that are missing from the file were filled with random numbers, and transformers only logs it.
    passed = {"unexpected_keys"} if ignore_extra else set()
    if strange := sorted(str(key) for kind, keys in report.items() if kind not in passed for key in keys):
        raise WeightsCorrupt(f"{complaint}: {len(strange)} tensors are missing or unexpected, first {strange[0]}.")
    return network.float()


def write_safetensors(path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> Path:
    """Write torch tensors or numpy arrays atomically: a reader sees the old file or the new one. Raises OutputError."""
    if all(hasattr(tensor, "detach") for tensor in tensors.values()):
        from safetensors.torch import save

        content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, dict(metadata))
    else:
        from safetensors.numpy import save as save_arrays

        content = save_arrays(dict(tensors), dict(metadata))
    with os_errors_as_output(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    return write_bytes(content, path, overwrite=True)


def _require(path: Path) -> None:
    if not path.is_file():
        raise WeightsMissing(f"There is no weights file {path}.")
    verify(path)


def _is_ordinary(path: Path) -> bool:
    """Tell, before anything is unpickled, whether a training can have written the file."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        program = sum(member.file_size for member in members if member.filename.endswith(".pkl"))
        return program <= _MAX_PROGRAM and all(member.compress_type == zipfile.ZIP_STORED for member in members)
    with path.open("rb") as file:
        for _ in range(_LEGACY_PICKLES):
            if any(file.tell() > _MAX_PROGRAM for _ in pickletools.genops(file)):
                return False
    return True


def _require_match(
    wanted: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor], path: Path, *, ignore_extra: bool = False
) -> None:
    """Raise WeightsCorrupt unless ``tensors`` has these names and shapes."""
    missing = sorted(wanted.keys() - tensors.keys())
    extra = [] if ignore_extra else sorted(tensors.keys() - wanted.keys())
    shapes = {name: (tuple(t.shape), tuple(tensors[name].shape)) for name, t in wanted.items() if name in tensors}
    wrong = [f"{name} ({found}, not {shape})" for name, (shape, found) in sorted(shapes.items()) if shape != found]
    for what, names in (("lacks", missing), ("has an unknown", extra), ("has a wrong shape for", wrong)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise WeightsCorrupt(f"{path} is for another architecture: it {what} {names[0]}{more}.")
