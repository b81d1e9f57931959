"""Weight files of the metrics that need them: where they are looked for, what they must be, how they are read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rasr.errors import WeightsCorrupt, WeightsMissing
from rasr.home import home, offline

if TYPE_CHECKING:
    import torch

    _Network = TypeVar("_Network", bound=torch.nn.Module)

__all__ = ["WEIGHT_FILES", "MetricWeights", "WeightFile", "packaged"]


@dataclass(frozen=True, slots=True)
class WeightFile:
    """A file as its authors publish it; nothing is converted, so that anyone can check it against the source."""

    filename: str
    """Name it has here; the publisher's own except where that one says nothing."""
    url: str
    megabytes: int
    sha256: str
    """The first eight digits, which the publisher puts into the file's name; empty where there are none to check."""
    licence: str
    used_by: str


WEIGHT_FILES: Mapping[str, WeightFile] = {
    "alexnet": WeightFile(
        "alexnet-owt-7be5be79.pth",
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        233,
        "7be5be79",
        "BSD-3-Clause (torchvision)",
        "LPIPS",
    ),
    "vgg16": WeightFile(
        "vgg16-397923af.pth",
        "https://download.pytorch.org/models/vgg16-397923af.pth",
        528,
        "397923af",
        "BSD-3-Clause (torchvision)",
        "DISTS",
    ),
    "inception": WeightFile(
        "pt_inception-2015-12-05-6726825d.pth",
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        91,
        "6726825d",
        "Apache-2.0",
        "FID and KID",
    ),
    "clip-rn50": WeightFile(
        "resnet50_clip.openai.safetensors",
        "https://huggingface.co/timm/resnet50_clip.openai/resolve/"
        "b5ad1dd2714e05200953a70eb508a352fc52b803/open_clip_model.safetensors",
        408,
        "",
        "MIT (OpenAI CLIP)",
        "CLIPIQA",
    ),
    "musiq-koniq": WeightFile(
        "musiq_koniq_ckpt-e95806b9.pth",
        "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/musiq_koniq_ckpt-e95806b9.pth",
        104,
        "e95806b9",
        "Apache-2.0 (google-research), converted by IQA-PyTorch",
        "MUSIQ",
    ),
}


class MetricWeights:
    """Finds and reads weight files.

    Looked for in ``folder`` (when given), in ``RASR_HOME/models/metrics`` and in torch's own hub cache, where
    torchvision leaves its files. ``download=True`` fetches what is missing into ``RASR_HOME/models/metrics``; without
    it nothing is ever fetched.
    """

    def __init__(self, folder: Path | None = None, *, download: bool = False) -> None:
        self._folder = folder
        self._download = download

    def folders(self) -> list[Path]:
        """Where files are looked for, in order."""
        torch_home = Path(os.environ.get("TORCH_HOME", Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "torch"))
        return [
            *([self._folder] if self._folder else []),
            home() / "models" / "metrics",
            torch_home.expanduser() / "hub" / "checkpoints",
        ]

    def find(self, name: str) -> Path:
        """The file called ``name`` in the table. Raises WeightsMissing, saying what to put where."""
        wanted = WEIGHT_FILES[name]
        for folder in self.folders():
            if (folder / wanted.filename).is_file():
                return folder / wanted.filename
        if self._download:
            return _fetch(wanted, home() / "models" / "metrics")
        raise WeightsMissing(
            f"{wanted.filename} ({wanted.megabytes} MB, {wanted.licence}) is not in {self.folders()[0]}. Run again "
            f"with --download, or put it there from {wanted.url}"
        )

    def load(self, name: str) -> dict[str, torch.Tensor]:
        """The tensors of the file called ``name``, on the CPU. Raises WeightsMissing or WeightsCorrupt."""
        import torch
        from safetensors.torch import load_file

        path = self.find(name)
        try:
            if path.suffix == ".safetensors":
                return dict(load_file(path))
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise WeightsCorrupt(
                f"{path} cannot be read as weights ({error}). Delete it and fetch it again."
            ) from error
        if not isinstance(state, dict):
            raise WeightsCorrupt(f"{path} holds a {type(state).__name__} instead of named tensors.")
        for wrapper in ("params", "params_ema", "state_dict"):
            state = state.get(wrapper, state)
        return {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}

    def build(self, network: Callable[[], _Network], name: str) -> _Network:
        """The network with the file's weights, frozen, on the CPU. Tensors of the file it has no use for are ignored.

        It is laid out without memory first, so nothing is initialised only to be overwritten. Raises WeightsMissing, or
        WeightsCorrupt naming the first tensor that is missing or has another shape.
        """
        import torch

        state = self.load(name)
        with torch.device("meta"):
            built = network()
        wanted = built.state_dict()
        for key, value in wanted.items():
            if key not in state or state[key].shape != value.shape:
                found = f"has shape {tuple(state[key].shape)}" if key in state else "is missing"
                raise WeightsCorrupt(
                    f"{self.find(name)} is not {WEIGHT_FILES[name].filename}: tensor {key} {found}, "
                    f"expected {tuple(value.shape)}."
                )
        built.load_state_dict({key: state[key].to(value.dtype) for key, value in wanted.items()}, assign=True)
        return built.eval().requires_grad_(requires_grad=False)


def packaged(filename: str) -> dict[str, torch.Tensor]:
    """Small published parameters that come with this package (see data/README.md)."""
    from safetensors.torch import load_file

    return dict(load_file(Path(__file__).with_name("data") / filename))


def _fetch(wanted: WeightFile, folder: Path) -> Path:
    import torch

    if offline():
        raise WeightsMissing(
            f"{wanted.filename} is not on this machine and the network is switched off (RASR_OFFLINE)."
        )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / wanted.filename
    part = path.with_suffix(".part")
    try:
        torch.hub.download_url_to_file(wanted.url, str(part), progress=True)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise WeightsMissing(
            f"{wanted.url} could not be fetched ({error}). Put the file into {folder} by hand."
        ) from error
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(wanted.sha256):
        part.unlink()
        raise WeightsCorrupt(f"{wanted.url} has hash {found[:16]}…, expected {wanted.sha256}…; it was not kept.")
    part.rename(path)
    return path
