"""Encoding: output formats, and pixels back to a file's colour space, depth and metadata."""

import io
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rasr.errors import OutOfMemory, OutputError
from rasr.images import colour
from rasr.images.exif import exif_for_result, with_density
from rasr.images.picture import Metadata, Origin, Picture, print_density, resize
from rasr.images.png import encode_png, name_texts
from rasr.images.tiff import encode_tiff
from rasr.images.xmp import jpeg_segments, xmp_for_result
from rasr.object_path import place

_STRIP_PIXELS = 1 << 20
_SEGMENT = 65_000
"""Bytes of a block that fit into a JPEG marker segment beside its signature."""


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """A container and its limits."""

    name: str
    """Pillow's name: JPEG, PNG, WEBP or TIFF."""
    extensions: tuple[str, ...]
    max_side: int
    """Longest side in pixels that the format can express."""
    bits: tuple[int, ...]
    alpha: bool
    gray: bool = True
    quality: int | None = None
    """Default quality of a lossy format."""
    metadata_room: int | None = None
    """Bytes that one block of EXIF or IPTC can have, and XMP where it cannot be split."""


FORMATS = {
    format_.name: format_
    for format_ in (
        OutputFormat(
            "JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), 65_535, (8,), alpha=False, quality=95, metadata_room=_SEGMENT
        ),
        OutputFormat("PNG", (".png",), 2**31 - 1, (8, 16), alpha=True),
        OutputFormat("WEBP", (".webp",), 16_383, (8,), alpha=True, gray=False, quality=95),
        OutputFormat("TIFF", (".tif", ".tiff"), 2**31 - 1, (8, 16), alpha=True),
    )
}
"""Every format that can be written, by name."""


def usual_extension(name: str) -> str:
    """Extension of files of the format that Pillow calls ``name``; empty for one that cannot be written."""
    return FORMATS[name].extensions[0] if name in FORMATS else ""


def output_format(path: str | Path, format: str | None = None) -> OutputFormat:
    """Find the format by name (any case, ``jpg`` and ``tif`` too), or by the path's extension.

    Raises OutputError listing the known ones.
    """
    suffix = place(path).suffix.lower() if format is None else "." + format.lower().removeprefix(".")
    for candidate in FORMATS.values():
        if suffix in candidate.extensions or (format is not None and format.upper() == candidate.name):
            return candidate
    known = ", ".join(extension for candidate in FORMATS.values() for extension in candidate.extensions)
    asked = f"extension '{suffix}'" if suffix else "no extension"
    if suffix in {".heic", ".heif", ".hif"}:
        asked = "HEIC, which is read but not written"
    raise OutputError(f"{path}: cannot be saved with {asked}. Use one of {known}.")


def check_format(
    path: str | Path, format_: OutputFormat, width: int, height: int, origin: Origin, bits: int | None
) -> int:
    """Choose the bits per channel to write: those asked for, else the origin's, else 8.

    Raises OutputError for bits or a size that the format cannot hold, naming one that can.
    """
    if max(width, height) > format_.max_side:
        fits = [other.extensions[0] for other in FORMATS.values() if other.max_side >= max(width, height)]
        raise OutputError(
            f"{path}: {format_.name} holds at most {format_.max_side} pixels a side and the result has "
            f"{width}×{height}. Use {' or '.join(fits)}."
        )
    if bits is None:
        return origin.bits if origin.bits in format_.bits else 8
    if bits not in format_.bits:
        fits = [other.extensions[0] for other in FORMATS.values() if bits in other.bits]
        use = f"use {' or '.join(fits)}" if fits else "choose 8 or 16"
        raise OutputError(f"{format_.name} cannot hold {bits} bits per channel; {use}.")
    return bits


def losses(picture: Picture, path: str | Path, *, format: str | None = None) -> tuple[str, ...]:
    """List what saving a picture in a format gives up, one sentence each, before any work."""
    format_ = output_format(path, format)
    found = []
    if picture.alpha is not None and not format_.alpha:
        found.append(f"{format_.name} has no transparency: the picture is laid on the background colour")
    if picture.origin.bits > max(format_.bits):
        found.append(f"{format_.name} has 8 bits per channel: the input's 16 are rounded")
    if picture.origin.iptc and format_.name not in {"JPEG", "TIFF"}:
        found.append(f"{format_.name} has no place for IPTC captions: they are left out (XMP and EXIF are kept)")
    if format_.metadata_room is not None:
        blocks = {"EXIF": picture.origin.exif, "XMP": picture.origin.xmp, "IPTC": picture.origin.iptc}
        for name, block in blocks.items():
            if not block or len(block) <= format_.metadata_room:
                continue
            if name == "XMP" and jpeg_segments(block, format_.metadata_room)[0]:
                continue
            part = "its maker note is" if name == "EXIF" else "it is"
            found.append(f"the {name} block is too long for {format_.name}: {part} left out")
    if picture.origin.texts and format_.name != picture.origin.format:
        texts = picture.origin.texts
        named = "JPEG comments" if picture.origin.format == "JPEG" else f"PNG texts ({name_texts(texts)})"
        found.append(f"{format_.name} has no place for {named}: left out")
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Encoding:
    """Options for saving a picture; None leaves a choice to the format or the picture's origin."""

    quality: int | Literal["lossless"] | None = None
    """JPEG and WebP: 1 to 100, 95 by default; WebP also 'lossless'. JPEG is always 4:4:4. Others have no quality."""
    bits: int | None = None
    """8 or 16; by default the origin's where the format has them."""
    metadata: Metadata = "keep"
    """Whether EXIF (with GPS), XMP and IPTC go along; ``no-location``: all but where the photo was taken. The ICC
    profile always does: without it colours would change."""
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """sRGB colour under transparent pixels in a format without alpha: white."""
    software: str | None = None
    """Written into EXIF's Software tag, whatever ``metadata`` says."""
    description: str | None = None
    """Settings of the run, written into EXIF's ImageHistory tag, whatever ``metadata`` says."""


def encode_picture(picture: Picture, format: str | OutputFormat, encoding: Encoding | None = None) -> bytes:
    """Encode a picture as the content of a JPEG, PNG, WebP or TIFF file.

    Pixels are clipped to [0, 1], converted from sRGB to the origin's ICC profile, rounded to the nearest level (no
    dithering) and, for a gray origin, written as one channel. Raises OutputError for a size or depth the format cannot
    hold, ValueError for an impossible quality and for pixels that are not finite.
    """
    encoding = encoding or Encoding()
    format_ = output_format("picture", format) if isinstance(format, str) else format
    if encoding.metadata not in get_args(Metadata):
        raise ValueError(f"metadata must be 'keep', 'no-location' or 'strip', not {encoding.metadata!r}")
    name, width, height = picture.path or "picture", picture.width, picture.height
    bits = check_format(name, format_, width, height, picture.origin, encoding.bits)
    try:
        samples = _samples(picture, format_, bits, encoding.background)
        attached = _attachments(picture, format_, encoding)
        return _ENCODERS[format_.name](samples, attached, encoding)
    except MemoryError as error:
        raise OutOfMemory(f"Not enough memory to encode {picture.width}×{picture.height} {format_.name}.") from error


def _samples(
    picture: Picture, format_: OutputFormat, bits: int, background: tuple[float, float, float]
) -> NDArray[Any]:
    """Make integer samples (H, W, C) by strips: C = 1 gray, 2 gray+alpha, 3 RGB, 4 RGB+alpha."""
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
    """Resample these rows of the out-of-gamut residual to the result's size."""
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


def _attachments(picture: Picture, format_: OutputFormat, encoding: Encoding) -> Origin:
    """Choose the profile and the metadata blocks that are embedded beside the pixels."""
    origin = picture.origin
    keep = encoding.metadata != "strip"
    if encoding.metadata == "no-location":
        from rasr.images.location import without_location

        origin = without_location(origin)
    block = origin.exif if keep else None
    if keep and format_.name == "WEBP":  # which has no other place for it
        block = with_density(block, origin.density)
    exif = exif_for_result(
        block,
        picture.width,
        picture.height,
        software=encoding.software,
        description=encoding.description,
        room=format_.metadata_room,
    )
    return replace(
        origin,
        icc=_profile(picture, format_),
        exif=exif,
        xmp=xmp_for_result(origin.xmp, picture.width, picture.height) if keep and origin.xmp else None,
        iptc=origin.iptc if keep else None,
        texts=origin.texts if keep and origin.format == format_.name else (),
    )


def _profile(picture: Picture, format_: OutputFormat) -> bytes | None:
    """Choose the ICC profile to embed: the origin's, unless the format has no gray for it."""
    return None if picture.origin.gray and not format_.gray else picture.origin.icc


def _image(samples: NDArray[Any]) -> Image.Image:
    return Image.fromarray(samples[:, :, 0] if samples.shape[2] == 1 else samples)


def _jpeg(samples: NDArray[Any], attached: Origin, encoding: Encoding) -> bytes:
    quality = _quality(encoding, lossless=False)
    xmp, extra = jpeg_segments(attached.xmp, _SEGMENT) if attached.xmp else (None, b"")
    extra += b"".join(b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text for text in attached.texts)
    extra += _app13(attached.iptc) if attached.iptc else b""
    attached = replace(attached, xmp=xmp)
    data = _by_pillow(_image(samples), "JPEG", attached, quality=quality, subsampling=0, extra=extra)
    if not attached.density:
        return data
    across, down, unit = print_density(attached.density)
    axes = [min(65_535, max(1, round(axis))) for axis in (across, down)]
    # Of JFIF's header Pillow writes dots per inch only; it stands first.
    return data[:13] + struct.pack(">BHH", {"": 0, "inch": 1, "cm": 2}[unit], *axes) + data[18:]


def _webp(samples: NDArray[Any], attached: Origin, encoding: Encoding) -> bytes:
    quality = _quality(encoding, lossless=True)
    whole = quality == "lossless"
    image = _image(samples if samples.shape[2] >= 3 else samples[:, :, [0, 0, 0, 1][: samples.shape[2] + 2]])
    # exact: colours under transparent pixels are the user's too
    return _by_pillow(image, "WEBP", attached, lossless=whole, quality=75 if whole else quality, exact=True)


def _by_pillow(image: Image.Image, name: str, attached: Origin, **options: Any) -> bytes:
    out = io.BytesIO()
    icc, exif, xmp = (block or b"" for block in (attached.icc, attached.exif, attached.xmp))
    image.save(out, name, icc_profile=icc, exif=exif, xmp=xmp, **options)
    return out.getvalue()


def _png(samples: NDArray[Any], attached: Origin, encoding: Encoding) -> bytes:  # noqa: ARG001
    return encode_png(samples, attached)


def _tiff(samples: NDArray[Any], attached: Origin, encoding: Encoding) -> bytes:  # noqa: ARG001
    return encode_tiff(samples, attached)


def _app13(iptc: bytes) -> bytes:
    """Wrap IPTC records as the Photoshop image resource 0x0404 in a JPEG's APP13 segment."""
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
