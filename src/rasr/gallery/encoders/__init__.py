"""Encoders for retrieval: the table of names, and how one is made.

An encoder of one's own is a file and a line: a class that meets :class:`Encoder`, made with ``device``, and its line in
:data:`ENCODERS`. Weights that it needs are registered in its file (:mod:`rasr.weights.catalogue`).
"""

from __future__ import annotations

from pkgutil import resolve_name

from rasr.errors import UsageError
from rasr.gallery.encoders.encoder import Embeddings, Encoder

__all__ = ["DEFAULT_ENCODER", "ENCODERS", "Embeddings", "Encoder", "load_encoder"]

DEFAULT_ENCODER = "effnet-lite0-robust"
ENCODERS = {
    "effnet-lite0-robust": "rasr.gallery.encoders.efficientnet:EffNetLite0Robust",
    "effnet-lite0": "rasr.gallery.encoders.efficientnet:EffNetLite0",
    "dinov2-small": "rasr.gallery.encoders.dinov2:small",
    "dinov2-base": "rasr.gallery.encoders.dinov2:base",
    "dinov2-large": "rasr.gallery.encoders.dinov2:large",
}
"""Name → ``module:class``, or another callable; besides them ``dinov2:FOLDER`` for DINOv2 weights in a local folder."""


def load_encoder(name: str = DEFAULT_ENCODER, *, device: str = "cpu") -> Encoder:
    """Make the encoder called ``name``.

    Nothing is read until its fingerprint or its first embedding is asked for, and nothing is ever downloaded: that is
    for ``rasr models download``. ``device`` is a name for :func:`rasr.device.choose_device`. Raises UsageError for an
    unknown name.
    """
    if name.removeprefix("dinov2:") not in {name, ""}:
        from rasr.gallery.encoders.dinov2 import DinoV2

        return DinoV2(name, device=device)
    if name not in ENCODERS:
        raise UsageError(f"Unknown encoder '{name}'. Choose one of: {', '.join(ENCODERS)}, or dinov2:FOLDER.")
    encoder: Encoder = resolve_name(ENCODERS[name])(device=device)
    return encoder
