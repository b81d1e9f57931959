"""Pictures: reading, writing, resizing. Nothing here imports torch."""

from rasr.images.picture import FloatImage, Origin, Picture

__all__ = ["FloatImage", "Origin", "Picture"]
