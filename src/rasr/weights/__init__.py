"""Weights: one catalogue of every weight file, one way to find it, one rule to download it, one reader."""

from rasr.weights.catalogue import CATALOGUE, ModelWeights, entry, register, serving
from rasr.weights.download import plan_download
from rasr.weights.locate import find, require, variant, verify, weights_sha256
from rasr.weights.read import (
    fill_model,
    load_pretrained,
    load_strictly,
    read_checkpoint,
    read_metadata,
    read_safetensors,
    read_weights,
    write_safetensors,
)

__all__ = [
    "CATALOGUE",
    "ModelWeights",
    "entry",
    "fill_model",
    "find",
    "load_pretrained",
    "load_strictly",
    "plan_download",
    "read_checkpoint",
    "read_metadata",
    "read_safetensors",
    "read_weights",
    "register",
    "require",
    "serving",
    "variant",
    "verify",
    "weights_sha256",
    "write_safetensors",
]
