"""Encoding: from working pixels back to a file's own colour space, depth and metadata."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rasr.errors import OutOfMemory
from rasr.images import colour, metadata
from rasr.images.formats import OutputFormat, check_size, depth, output_format
from rasr.images.header import quiet
from rasr.images.picture import Picture
from rasr.images.resize import resize
from rasr.images.tiff import encode_tiff

__all__ = ["Encoding", "encode_picture"]

_STRIP_PIXELS = 1 << 20


@dataclass(frozen=True, slots=True)
class Encoding:
    """How to save a picture; None leaves a choice to the format or to the picture's origin."""

    quality: int | Literal["lossless"] | None = None
    """JPEG and WebP: 1 to 100, 95 by default; WebP also 'lossless'. JPEG is always 4:4:4. Others have no quality."""
    bits: int | None = None
    """8 or 16; by default the origin's where the format has them."""
    metadata: Literal["keep", "strip"] = "keep"
    """Whether EXIF (with GPS), XMP and IPTC go along. The ICC profile always does: without it colours would change."""
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """sRGB colour under transparent pixels in a format without alpha: white."""
    software: str | None = None
    """Written into EXIF's Software tag, whatever ``metadata`` says."""
    description: str | None = None
    """Settings of the run, written into EXIF's ImageHistory tag, whatever ``metadata`` says."""


@dataclass(frozen=True, slots=True)
class Attachments:
    """What is embedded beside the pixels."""

    icc: bytes | None
    exif: bytes | None
    xmp: bytes | None
    iptc: bytes | None


def encode_picture(picture: Picture, format: str | OutputFormat, encoding: Encoding | None = None) -> bytes:
    """The picture as the content of a JPEG, PNG, WebP or TIFF file.

    Pixels are clipped to [0, 1], converted from sRGB to the origin's ICC profile, rounded to the nearest level (no
    dithering) and, for a gray origin, written as one channel. Raises OutputError for a size or depth the format cannot
    hold, ValueError for an impossible quality and for pixels that are not finite.
    """
    encoding = encoding or Encoding()
    format_ = output_format("picture", format) if isinstance(format, str) else format
    check_size(picture.path or "picture", format_, picture.width, picture.height)
    if encoding.metadata not in {"keep", "strip"}:
        raise ValueError(f"metadata must be 'keep' or 'strip', not {encoding.metadata!r}")
    bits = depth(picture.origin, format_, encoding.bits)
    try:
        samples = _samples(picture, format_, bits, encoding.background)
        with quiet():
            attached = _attachments(picture, format_, encoding)
        return _ENCODERS[format_.name](samples, attached, encoding)
    except MemoryError as error:
        raise OutOfMemory(f"Not enough memory to encode {picture.width}×{picture.height} {format_.name}.") from error


def _samples(
    picture: Picture, format_: OutputFormat, bits: int, background: tuple[float, float, float]
) -> NDArray[Any]:
    """Integer samples (H, W, C) with C = 1 gray, 2 gray+alpha, 3 RGB or 4 RGB+alpha, made strip by strip."""
    origin, alpha = picture.origin, picture.alpha
    gray = origin.gray and format_.gray
    space: colour.Space = "gray" if gray else "rgb"
    icc = _profile(picture, format_)
    channels = 1 if gray else 3
    flatten = alpha is not None and not format_.alpha
    keep_alpha = alpha is not None and format_.alpha
    dtype = np.uint16 if bits == 16 else np.uint8
    out = np.empty((picture.height, picture.width, channels + keep_alpha), dtype)
    rows = max(1, _STRIP_PIXELS // picture.width)
    for top in range(0, picture.height, rows):
        part = slice(top, min(top + rows, picture.height))
        strip = np.clip(picture.pixels[part], 0, 1)
        if flatten and alpha is not None:
            cover = np.clip(alpha[part], 0, 1)[:, :, None]
            strip = strip * cover + np.array(background, np.float32) * (1 - cover)
        if picture.beyond is not None:
            strip += _beyond(picture.beyond, picture.width, picture.height, part)
        if not np.isfinite(strip).all():
            raise ValueError("pixels are not finite (NaN or infinity)")
        converted = colour.from_srgb(strip, space, icc)
        out[part, :, :channels] = _quantise(converted, dtype)
        if keep_alpha and alpha is not None:
            out[part, :, channels] = _quantise(alpha[part], dtype)
    return out


def _quantise(values: NDArray[np.float32], dtype: type[np.uint8] | type[np.uint16]) -> NDArray[Any]:
    scaled = np.clip(values, 0, 1) * np.float32(np.iinfo(dtype).max)
    rounded: NDArray[Any] = np.rint(scaled, out=scaled).astype(dtype)
    return rounded


def _beyond(beyond: NDArray[np.float32], width: int, height: int, rows: slice) -> NDArray[np.float32]:
    """These rows of the out-of-gamut residual, resampled to the result's size."""
    scale = beyond.shape[0] / height
    top, bottom = rows.start * scale, min(rows.stop * scale, beyond.shape[0])
    # Only the rows that the filter can reach: resizing copies what it is given.
    reach = int(np.ceil(max(1.0, scale))) + 1
    first, last = max(0, int(top) - reach), min(beyond.shape[0], int(np.ceil(bottom)) + reach)
    source = beyond[first:last]
    return resize(
        source,
        (width, rows.stop - rows.start),
        filter="bilinear",
        box=(0, top - first, beyond.shape[1], bottom - first),
    )


def _attachments(picture: Picture, format_: OutputFormat, encoding: Encoding) -> Attachments:
    origin = picture.origin
    keep = encoding.metadata == "keep"
    exif = metadata.exif_for_result(
        origin.exif if keep else None,
        picture.width,
        picture.height,
        software=encoding.software,
        description=encoding.description,
        room=format_.metadata_room,
    )
    xmp = origin.xmp if keep else None
    if xmp and format_.metadata_room is not None and len(xmp) > format_.metadata_room:
        xmp = None
    return Attachments(_profile(picture, format_), exif, xmp, origin.iptc if keep else None)


def _profile(picture: Picture, format_: OutputFormat) -> bytes | None:
    """The ICC profile to convert to and embed: the origin's, unless it is for gray and the format has no gray."""
    return None if picture.origin.gray and not format_.gray else picture.origin.icc


def _image(samples: NDArray[Any]) -> Image.Image:
    return Image.fromarray(samples[:, :, 0] if samples.shape[2] == 1 else samples)


def _jpeg(samples: NDArray[Any], attached: Attachments, encoding: Encoding) -> bytes:
    quality = _quality(encoding, lossless=False)
    out = io.BytesIO()
    extra = _app13(attached.iptc) if attached.iptc else b""
    _image(samples).save(
        out,
        "JPEG",
        quality=quality,
        subsampling=0,
        icc_profile=attached.icc,
        exif=attached.exif or b"",
        xmp=attached.xmp or b"",
        extra=extra,
    )
    return out.getvalue()


def _webp(samples: NDArray[Any], attached: Attachments, encoding: Encoding) -> bytes:
    quality = _quality(encoding, lossless=True)
    out = io.BytesIO()
    _image(samples if samples.shape[2] >= 3 else samples[:, :, [0, 0, 0, 1][: samples.shape[2] + 2]]).save(
        out,
        "WEBP",
        lossless=quality == "lossless",
        quality=75 if quality == "lossless" else quality,
        exact=True,  # colours under transparent pixels are the user's too
        icc_profile=attached.icc or b"",
        exif=attached.exif or b"",
        xmp=attached.xmp or b"",
    )
    return out.getvalue()


def _png(samples: NDArray[Any], attached: Attachments, encoding: Encoding) -> bytes:  # noqa: ARG001
    """Pixels through libpng (Pillow has no 16-bit colour); the metadata chunks go in behind the header chunk."""
    import imagecodecs

    data = imagecodecs.png_encode(samples[:, :, 0] if samples.shape[2] == 1 else samples)
    chunks = []
    if attached.icc:
        chunks.append(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(attached.icc)))
    if attached.exif:
        chunks.append(_chunk(b"eXIf", attached.exif.removeprefix(b"Exif\0\0")))
    if attached.xmp:
        chunks.append(_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + attached.xmp))
    after_header = 8 + 25  # signature, IHDR
    return b"".join([data[:after_header], *chunks, memoryview(data)[after_header:]])


def _tiff(samples: NDArray[Any], attached: Attachments, encoding: Encoding) -> bytes:  # noqa: ARG001
    return encode_tiff(samples, icc=attached.icc, exif=attached.exif, xmp=attached.xmp, iptc=attached.iptc)


def _chunk(kind: bytes, body: bytes) -> bytes:
    """A PNG chunk (PNG specification, 5.3)."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _app13(iptc: bytes) -> bytes:
    """IPTC records as the Photoshop image resource 0x0404 in a JPEG's APP13 segment."""
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(iptc)) + iptc + b"\0" * (len(iptc) % 2)
    segment = b"Photoshop 3.0\0" + resource
    if len(segment) > 65_533:
        return b""
    return b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment


def _quality(encoding: Encoding, *, lossless: bool) -> int | Literal["lossless"]:
    quality = 95 if encoding.quality is None else encoding.quality
    if quality == "lossless" and lossless:
        return quality
    if isinstance(quality, str) or not 1 <= quality <= 100:
        allowed = "1 to 100 or 'lossless'" if lossless else "1 to 100"
        raise ValueError(f"quality must be {allowed}, not {quality!r}")
    return quality


_ENCODERS = {"JPEG": _jpeg, "PNG": _png, "WEBP": _webp, "TIFF": _tiff}
