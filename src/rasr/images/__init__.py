"""Pictures: reading, writing, resizing. Nothing here imports torch."""

from rasr.images.decode import read_picture
from rasr.images.encode import Encoding, encode_picture
from rasr.images.find import PICTURE_EXTENSIONS, find_pictures, walk_pictures
from rasr.images.formats import losses
from rasr.images.header import Header, Source, read_header
from rasr.images.limits import Limits
from rasr.images.output import check_output, write_picture
from rasr.images.picture import FloatImage, Origin, Picture
from rasr.images.resize import Filter, resize

__all__ = [
    "PICTURE_EXTENSIONS",
    "Encoding",
    "Filter",
    "FloatImage",
    "Header",
    "Limits",
    "Origin",
    "Picture",
    "Source",
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
