"""Weight files that training writes: adapters (trained reference branches) and backbones.

An adapter is one safetensors file with the branch's own tensors, its configuration, and the identity of the backbone it
was trained on. The identity is a sample of the backbone's weights, compared with a tolerance that forgives a change of
number format (fp16 or bf16 against fp32) but not another model.
"""

import json
from pathlib import Path
from typing import Any

import torch

from rasr.config import check_table
from rasr.errors import ConfigError, UsageError, WeightsCorrupt, WeightsError
from rasr.files import parse_object
from rasr.generator.config import ReferenceConfig
from rasr.generator.refdsr import RefDSR
from rasr.weights import load_strictly, read_safetensors, write_safetensors

FORMAT = "rasr-adapter-1"
RETIRED = {"reading": "condition", "text": "everywhere", "temperature": 0.1}
"""Keys of the reference table that earlier versions wrote, with the only value that is still understood."""
UNREAD = {"dimension", "summaries", "window", "phases", "direct", "local_levels", "width"}
"""Keys that earlier versions wrote too and only branches read that are retired: without effect on this one."""
BACKBONE_FORMAT = "rasr-backbone-1"
SIGNATURE = "backbone.signature"
SAMPLES = 8
TOLERANCE = 4e-3
"""Relative distance of signatures. Rounding to bf16 gives about 1.7e-3; a rank-4 LoRA of 1 % on every layer 1e-2."""


def _backbone_signature(model: RefDSR) -> torch.Tensor:
    """Sample the UNet: eight values of every weight matrix, fp32, over the sample's own norm.

    (matrices × 8,) for the whole UNet in the order of its names.
    """
    parts = []
    for _, weight in sorted(model.unet.named_parameters()):
        if weight.ndim < 2:
            continue
        flat = weight.detach().flatten()
        picked = flat[:: max(1, flat.numel() // SAMPLES)][:SAMPLES].float().cpu()
        parts.append(picked / picked.norm().clamp_min(1e-12))
    return torch.cat(parts)


def save_adapter(model: RefDSR, path: Path, *, notes: dict[str, Any] | None = None) -> Path:
    """Write the reference branch; JSON-able ``notes`` (steps, licence) go into its metadata."""
    if model.branch is None:
        raise UsageError(f"{model.config.name} has no reference branch to save.")
    metadata = {
        "format": FORMAT,
        "reference": model.branch.config.model_dump_json(),
        "backbone": json.dumps(_backbone_facts(model)),
        "notes": json.dumps(notes or {}),
    }
    tensors = {**model.reference_parameters(), SIGNATURE: _backbone_signature(model)}
    return write_safetensors(path, tensors, metadata)


def load_adapter(model: RefDSR, path: Path) -> dict[str, Any]:
    """Attach the branch an adapter file describes and load it; returns the file's notes.

    Raises WeightsCorrupt for a damaged file or one that is no adapter, WeightsError for one made for another backbone.
    """
    tensors, metadata = read_safetensors(path)
    if metadata.get("format") != FORMAT or SIGNATURE not in tensors:
        raise WeightsCorrupt(f"{path} is not a RASR adapter (format {metadata.get('format', 'unknown')[:40]}).")
    signature = tensors.pop(SIGNATURE)
    try:
        config = _read_reference(metadata["reference"])
        backbone, notes = parse_object(metadata["backbone"]), parse_object(metadata["notes"])
    except (KeyError, ValueError, ConfigError) as error:
        raise WeightsCorrupt(f"{path}: its metadata cannot be read ({str(error)[:200]}).") from error
    _require_same_backbone(model, signature, backbone, path)
    previous, model.branch = model.branch, None
    try:
        branch = model.attach_reference(config)
        load_strictly(model.reference_parameters(), tensors, path)
    except WeightsError:
        model.branch = previous
        raise
    branch.requires_grad_(False).eval()
    return notes


def _read_reference(text: str) -> ReferenceConfig:
    """Parse the reference table of an adapter, without retired keys. Raises ValueError."""
    table = parse_object(text)
    for key, meant in RETIRED.items():
        if table.pop(key, meant) != meant:
            raise ValueError(f"it was trained with another {key} than {meant!r}, which is retired")
    if (control := table.get("control")) in {"attention", "copy"}:
        raise ValueError(f"its branch, '{control}', is retired")
    return check_table(ReferenceConfig, {key: table[key] for key in table.keys() - UNREAD}, "reference")


def save_backbone(model: RefDSR, path: Path, *, half: bool = False, notes: dict[str, Any] | None = None) -> Path:
    """Write UNet, codec and context projection of a model built here; ``half`` stores fp16."""
    tensors = _backbone_state(model)
    if half:
        tensors = {name: tensor.half() for name, tensor in tensors.items()}
    metadata = {"format": BACKBONE_FORMAT, "preset": model.config.name, "notes": json.dumps(notes or {})}
    return write_safetensors(path, tensors, metadata)


def load_backbone(model: RefDSR, path: Path) -> dict[str, Any]:
    """Load a backbone file and return its notes. Raises WeightsMissing or WeightsCorrupt."""
    tensors, metadata = read_safetensors(path)
    if metadata.get("format") != BACKBONE_FORMAT:
        raise WeightsCorrupt(f"{path} is not a RASR backbone (format {metadata.get('format', 'unknown')[:40]}).")
    load_strictly(_backbone_state(model), tensors, path)
    try:
        return parse_object(metadata.get("notes", "{}"))
    except ValueError as error:
        raise WeightsCorrupt(f"{path}: its metadata cannot be read ({error}).") from error


def _backbone_facts(model: RefDSR) -> dict[str, Any]:
    config = model.config
    return {"preset": config.name, "rule": config.rule, "timestep": config.timestep, "sees_lq": config.sees_lq}


def _require_same_backbone(model: RefDSR, signature: torch.Tensor, backbone: dict[str, Any], path: Path) -> None:
    mine = _backbone_signature(model)
    same = signature.shape == mine.shape and bool((signature - mine).norm() <= TOLERANCE * mine.norm())
    here = _backbone_facts(model)
    differing = [key for key in here if key != "preset" and backbone.get(key) != here[key]]
    if not same or differing:
        why = f"its {differing[0]} differs" if differing else "the weights differ"
        raise WeightsError(
            f"{path} was trained on the backbone '{backbone.get('preset')}', not on this '{model.config.name}' "
            f"({why}). Use the backbone it names, or an adapter for this one."
        )


def _backbone_state(model: RefDSR) -> dict[str, torch.Tensor]:
    parts = {"unet": model.unet, "codec": model.codec, "context_projection": model.context_projection}
    return {
        f"{part}.{name}": tensor
        for part, module in parts.items()
        if module is not None
        for name, tensor in module.state_dict().items()
    }
