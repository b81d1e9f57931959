"""Pictures: finding, reading, writing and resampling them. Nothing here imports torch."""

from rasr.images.decode import read_picture
from rasr.images.encode import Encoding, encode_picture, losses
from rasr.images.find import find_pictures, walk_pictures
from rasr.images.header import Header, ImageSource, Limits, read_header
from rasr.images.output import check_output, write_picture
from rasr.images.picture import FloatImage, Origin, Picture, resize

__all__ = [
    "Encoding",
    "FloatImage",
    "Header",
    "ImageSource",
    "Limits",
    "Origin",
    "Picture",
    "check_output",
    "encode_picture",
    "find_pictures",
    "losses",
    "read_header",
    "read_picture",
    "resize",
    "walk_pictures",
    "write_picture",
]
