"""Encoders for retrieval: the table of names, and how one is made."""

from __future__ import annotations

from rasr.errors import UsageError
from rasr.gallery.encoders.protocol import Embeddings, Encoder

__all__ = ["DEFAULT_ENCODER", "ENCODERS", "Embeddings", "Encoder", "load_encoder"]

DEFAULT_ENCODER = "effnet-lite0-robust"
ENCODERS = ("effnet-lite0-robust", "effnet-lite0", "dinov2-small", "dinov2-base", "dinov2-large")
"""Names to choose from; besides them ``dinov2:FOLDER`` for DINOv2 weights in a local folder."""


def load_encoder(name: str = DEFAULT_ENCODER, *, device: str = "cpu") -> Encoder:
    """The encoder called ``name``.

    Nothing is read until its fingerprint or its first embedding is asked for, and nothing is ever downloaded: that is
    for ``rasr models download``. ``device`` is a name for :func:`rasr.device.choose_device`. Raises UsageError for an
    unknown name.
    """
    if name == "effnet-lite0":
        from rasr.gallery.encoders.effnet import EffNetLite0

        return EffNetLite0(device=device)
    if name == "effnet-lite0-robust":
        from rasr.gallery.encoders.robust import EffNetLite0Robust

        return EffNetLite0Robust(device=device)
    if name in ENCODERS or name.removeprefix("dinov2:") not in {name, ""}:
        from rasr.gallery.encoders.dinov2 import DinoV2

        return DinoV2(name, device=device)
    raise UsageError(f"Unknown encoder '{name}'. Choose one of: {', '.join(ENCODERS)}, or dinov2:FOLDER.")
