"""Decoding: from a file's samples to a Picture in the working space, with the metadata that hold for a result."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile

from rasr.errors import PictureError
from rasr.images import colour
from rasr.images.colour import Samples, Space
from rasr.images.header import BYTES_PER_PIXEL, ImageSource, Limits, Opened, open_header
from rasr.images.jpeg import COMMENT, JpegHead, decode_jpeg, xmp_extension
from rasr.images.picture import Density, Origin, Picture, from_levels
from rasr.images.plugins import Budget, TiffFile, expect, parsing, quiet
from rasr.images.png import PngHead, check_complete, colour_profile, kept_text, scale_transparency
from rasr.images.tiff import TiffHead, check_strips, plain_tiff, read_tiff
from rasr.images.tiff import colour_profile as tiff_profile
from rasr.memory import memory_errors_told, sharing_memory
from rasr.object_path import place

if TYPE_CHECKING:
    from rasr.images.exif import Exif

_XMP, _IPTC = 700, 33723
"""TIFF tags."""


def read_picture(source: ImageSource, *, limits: Limits | None = None) -> Picture:
    """Read a picture from a path, or from a file's content as bytes.

    JPEG, PNG, WebP, TIFF and (with the extra ``heic``) HEIC are recognised by content. The result is upright, converted
    from its colour profile to sRGB, with 16-bit samples kept and alpha apart; of several frames the first is read, with
    a note. ``limits`` (:meth:`Limits.from_memory` by default) are checked on the header before anything is decoded;
    threads that read at once wait for one another where their pictures together would take more than half of the
    memory. Raises PictureError for what is missing, empty, damaged, truncated or HDR, UnsupportedFormat,
    PictureTooLarge, OutOfMemory, and ExtraMissing for HEIC without its package.
    """
    limits = limits or Limits.from_memory()
    with open_header(source, limits) as opened:
        header = opened.header
        told = f"{opened.name}: not enough memory to decode {header.width}×{header.height} pixels."
        with sharing_memory(header.width * header.height * BYTES_PER_PIXEL), memory_errors_told(told):
            return _read(opened, None if isinstance(source, bytes) else place(source))


def _read(opened: Opened, path: Path | None) -> Picture:
    header, image = opened.header, opened.image
    icc = None if image.mode == "LAB" else image.info.get("icc_profile") or None
    notes: list[str] = []
    with parsing(opened.name):
        samples = _samples(opened, notes)
    with quiet():  # after the pixels: PNG may keep text and EXIF behind them
        exif, fields, remarks = _metadata(opened)
    notes += _about_frames(opened)
    icc = _profile(opened, icc, samples.space, notes)
    if icc is None and samples.space == "rgb" and exif is not None and exif.dcf_adobe_rgb:
        icc = colour.make_profile("rgb", *colour.ADOBE_RGB)
        notes.append("tagged as Adobe RGB by the camera (DCF), without a profile")
    pixels, alpha, beyond = _to_working(samples, icc, 1 if samples.upright else header.orientation, notes)
    origin = Origin(
        format=header.format,
        bits=header.bits,
        gray=samples.space == "gray",
        icc=None if samples.space == "cmyk" else icc,
        **fields,
    )
    return Picture(pixels, alpha, origin, path, (*remarks, *notes), beyond)


def _metadata(opened: Opened) -> tuple["Exif | None", dict[str, Any], list[str]]:
    """Return the EXIF, further fields of an Origin, and notes on what is left out and why."""
    image, head, orientation = opened.image, opened.head, opened.header.orientation
    exif, notes = None, list[str]()
    if isinstance(image, TiffFile) or any(image.info.get(key) for key in ("exif", "Raw profile type exif")):
        from rasr.images.exif import read_exif  # here and below: few files have any

        upright = opened.header.width, opened.header.height
        page = head.page if isinstance(head, TiffHead) else 0
        exif, broken = read_exif(image, opened.file, orientation=orientation, size=upright, page=page)
        notes += [broken] if broken else []
    blocks = {tag: entry.data for tag, entry in exif.blocks.items()} if exif else {}  # a TIFF's
    packet: Any = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or blocks.get(_XMP, b"")
    extension, size = xmp_extension(head) if isinstance(head, JpegHead) else (b"", 0)
    if size and not extension:
        notes.append(f"the extended XMP ({size} bytes) is incomplete and was left out")
    xmp = None
    if packet or extension:
        from rasr.images.xmp import clean_xmp

        packet = packet.encode() if isinstance(packet, str) else bytes(packet)
        xmp, remarks = clean_xmp(packet, extension, turned=orientation != 1)
        notes += remarks
    texts: tuple[bytes, ...] = ()
    if isinstance(head, JpegHead):
        texts = tuple(head.of(COMMENT))
    elif isinstance(head, PngHead):
        texts, dropped = kept_text(head)
        if dropped:
            notes.append(f"PNG text that describes the old file was left out ({dropped})")
    iptc = image.info.get("photoshop", {}).get(0x0404, b"")  # a JPEG's
    fields = {
        "exif": exif.to_bytes() if exif and exif.main else None,
        "xmp": xmp,
        "iptc": blocks.get(_IPTC) or (iptc if isinstance(iptc, bytes) and iptc else None),
        "texts": texts,
        "density": _stated_density(opened) or (exif.density if exif else None),
    }
    return exif, fields, notes


def _stated_density(opened: Opened) -> Density | None:
    """Density of the upright picture as the container states it; JFIF's 1:1 without a unit states nothing."""
    info, stated = opened.image.info, None
    if isinstance(opened.head, PngHead):
        stated = opened.head.density
    elif opened.header.format == "JPEG" and all(info.get("jfif_density", (0, 0))):
        across, down = info["jfif_density"]
        unit = {1: "inch", 2: "cm"}.get(info.get("jfif_unit", 0), "")
        stated = (across, down, unit) if unit or across != down else None
    if stated and opened.header.orientation >= 5:
        stated = stated[1], stated[0], stated[2]
    return stated


def _about_frames(opened: Opened) -> list[str]:
    frames, head = opened.header.frames, opened.head
    if isinstance(head, TiffHead) and head.page:
        return [f"first full picture of {frames} pages; those before it are thumbnails or masks"]
    notes = ["the file says that this is a thumbnail, and has no other picture"] if getattr(head, "reduced", 0) else []
    return (
        [*notes, f"first of {frames} {'pages' if opened.header.format == 'TIFF' else 'frames'}"]
        if frames > 1
        else notes
    )


def _profile(opened: Opened, icc: bytes | None, space: Space, notes: list[str]) -> bytes | None:
    """Choose the profile: the embedded one, else what PNG chunks, TIFF tags or a HEIC's codes describe. Refuses HDR."""
    try:
        if icc is not None:
            colour.refuse_hdr(icc, opened.name)
        elif _announces_profile(opened):
            notes.append("the colour profile is incomplete; it was ignored")
        if isinstance(opened.head, PngHead):
            icc, note = colour_profile(opened.head, icc, space, opened.name)
        elif icc is None and (codes := opened.image.info.get("nclx_profile")):
            pair = (codes["color_primaries"], codes["transfer_characteristics"])
            icc, note = colour.coded_profile(int(pair[0]), int(pair[1]), space, opened.name)
        else:
            note = None
            if icc is None and isinstance(opened.image, TiffFile) and opened.image.mode != "LAB":
                icc = tiff_profile(opened.image, space)
    except ValueError as error:
        icc, note = None, f"the colour description is impossible ({error}) and was ignored"
    if note:
        notes.append(note)
    if icc is not None and (problem := colour.usable_profile(icc, space)):
        notes.append(f"the colour profile {problem}; it was ignored")
        return None
    return icc


def _announces_profile(opened: Opened) -> bool:
    """Tell whether the file has a profile, though the parser gave none."""
    if isinstance(opened.head, PngHead):
        return b"iCCP" in opened.head.chunks
    return isinstance(opened.head, JpegHead) and any(one.startswith(b"ICC_PROFILE\0") for one in opened.head.of(0xE2))


def _to_working(
    samples: Samples, icc: bytes | None, orientation: int, notes: list[str]
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.float32] | None]:
    ink = samples.space == "cmyk"
    if ink:
        how = "by its profile" if icc else "without a profile, so colours are approximate"
        notes.append(f"converted from CMYK {how}; results are saved as sRGB")
        if icc is None:  # the plain rule, as Pillow has it: (1 − ink)(1 − black)
            whole = int(np.iinfo(samples.colour.dtype).max)
            paper = (whole - samples.colour).astype(np.uint32) * (65535 // whole)
            product = paper[:, :, :3] * paper[:, :, 3:] // 65535
            samples = Samples(product.astype(np.uint16), samples.alpha, "rgb")
    stored = np.ascontiguousarray(_upright(samples.colour, orientation))
    # Without a profile, gray and RGB are taken as sRGB.
    pixels, beyond = (from_levels(stored), None) if icc is None else colour.to_srgb(stored, samples.space, icc)
    alpha = None
    if samples.alpha is not None:
        whole = np.iinfo(samples.alpha.dtype).max
        alpha = np.ascontiguousarray(_upright(samples.alpha, orientation)).astype(np.float32)
        alpha *= np.float32(1 / whole)
    return pixels, alpha, None if ink else beyond


def _samples(opened: Opened, notes: list[str]) -> Samples:
    image, file, header, head = opened.image, opened.file, opened.header, opened.head
    if isinstance(head, JpegHead):
        array, remarks = decode_jpeg(file, head, image.mode, opened.name)
        notes += remarks
        expect(array.shape[1::-1] == image.size)
        return Samples(array, None, "cmyk") if image.mode == "CMYK" else _split(array)
    if isinstance(image, TiffFile) and isinstance(head, TiffHead):
        check_strips(image, file, opened.name)
        if header.bits == 16 or image.beyond_pillow or plain_tiff(image):
            return read_tiff(file, image.size, head.page, opened.name)
    if isinstance(head, PngHead):
        scale_transparency(image, head)
        if header.bits == 16:
            return _png16(image, file, head.end)
        image.load()
        check_complete(file, image, head)
    if header.format == "HEIF":
        from rasr.images.heif import check_coded

        check_coded(file, Budget(opened.name), alpha=image.mode.endswith("A"))
    return _pillow8(image, opened.name) if header.bits == 8 else _heif16(image, file)


def _pillow8(image: ImageFile, name: str) -> Samples:
    """Decode everything of 8 bits or fewer, whatever its mode, through Pillow."""
    image.load()
    upright = isinstance(image, TiffFile)  # Pillow turns TIFF, and only TIFF, while loading
    plain: Image.Image = image
    if image.mode in {"P", "PA", "1", "L", "RGB"} and image.has_transparency_data:
        plain = image.convert("LA" if image.mode in {"1", "L"} else "RGBA")
    elif image.mode in {"P", "YCbCr"}:
        plain = image.convert("RGB")
    elif image.mode == "1":
        plain = image.convert("L")
    elif image.mode == "LAB":
        plain = _from_lab(image)
    if plain.mode == "CMYK":
        return Samples(np.asarray(plain), None, "cmyk", upright)
    if plain.mode not in {"L", "LA", "RGB", "RGBA"}:
        raise PictureError(f"{name}: {plain.mode} samples are not read; save it as RGB with 8 or 16 bits.")
    samples = _split(np.asarray(plain))
    samples.upright = upright
    return samples


def _png16(image: ImageFile, file: BinaryIO, end: int) -> Samples:
    """Decode a 16-bit PNG through libpng, since Pillow cuts colour to 8 bits."""
    import imagecodecs

    image.load()  # for the chunks behind the pixels, and for the same verdict on truncation
    file.seek(0)
    array = imagecodecs.png_decode(file.read(end))
    expect(array.dtype == np.uint16 and array.shape[1::-1] == image.size)
    return _split(array)


def _heif16(image: ImageFile, file: BinaryIO) -> Samples:
    """Decode a HEIC of 10 or 12 bits; libheif's wrapper scales it to 16 and turns it upright."""
    import pillow_heif

    file.seek(0)
    heif = pillow_heif.open_heif(file, convert_hdr_to_8bit=False, hdr_to_16bit=True)
    array = np.asarray(heif[heif.primary_index])
    expect(array.dtype == np.uint16 and array.shape[1::-1] == image.size)
    return _split(array)


def _split(array: NDArray[Any]) -> Samples:
    """Separate gray or RGB from alpha by the number of channels."""
    if array.ndim == 2:
        array = array[:, :, None]
    channels = array.shape[2]
    gray = channels < 3
    alpha = array[:, :, -1] if channels in {2, 4} else None
    return Samples(array[:, :, : 1 if gray else 3], alpha, "gray" if gray else "rgb")


def _from_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return cast(Image.Image, ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB"))


def _upright(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn (H, W, ...) pixels stored with EXIF orientation 1 to 8 upright (a view)."""
    if orientation >= 5:
        array = np.swapaxes(array, 0, 1)
    if orientation in {2, 3, 6, 7}:
        array = array[:, ::-1]
    if orientation in {3, 4, 7, 8}:
        array = array[::-1]
    return array
