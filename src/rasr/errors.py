"""Every error a user may see.

One tree: catching :class:`RasrError` catches all of them. The message says what happened, to which file, and what to
do about it; the command line prints it as one line and exits with :attr:`RasrError.exit_code`. Anything else that
leaves the package is a bug and keeps its traceback.

Messages hold file names as they are; :func:`shown` makes them fit to be printed.
"""

import pathlib
import re
import shlex

UNPRINTABLE = "\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
"""What a file's name may hold and no terminal should get, as the inside of a regular expression's brackets.

Control characters (among them those that begin an escape sequence), the line ends of Unicode, marks that turn the
direction of writing, and lone surrogates, by which Python stands for bytes that are not UTF-8.
"""
_UNPRINTABLE = re.compile(f"[{UNPRINTABLE}]")


def shown(value: object) -> str:
    r"""Make one printable line of a path, a name or a message: the rest stands as escapes.

    ``a\x1b[31mb``, ``a\nb``, ``a\u2028b``; a byte that is not UTF-8 is ``\xff``. Everything else stays as it is.
    """
    return _UNPRINTABLE.sub(_escape, str(value))


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return {9: "\\t", 10: "\\n", 13: "\\r"}.get(code, f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


class RasrError(Exception):
    """Base of every error meant to be shown to a user; the message is one complete sentence or two."""

    exit_code = 1


class UsageError(RasrError):
    """The arguments contradict each other or name something that does not exist."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration file has an unknown key, a wrong type or an impossible value."""


class PictureError(RasrError):
    """A picture cannot be read: missing, empty, truncated, corrupt or not a picture."""


class UnsupportedFormat(PictureError):
    """The file's content is not one of the accepted picture formats."""


class PictureTooLarge(PictureError):
    """The header announces more pixels, frames or bytes than the limit allows; nothing was decoded."""


class OutputError(RasrError):
    """A result cannot be written: folder missing or read-only, disk full, or the format cannot hold this size."""


class OutputExists(OutputError):
    """The output file exists and overwriting was not asked for."""


class GalleryError(RasrError):
    """Something is wrong with a gallery."""


class GalleryNotFound(GalleryError):
    """There is no gallery, and no folder of pictures, at the given path."""


class GalleryCorrupt(GalleryError):
    """A gallery file fails its checksum or cannot be parsed; searching it could return wrong neighbours."""


class GalleryBusy(GalleryError):
    """Another process has held the gallery's write lock for longer than the time-out."""


class StorageRefused(GalleryError):
    """The storage writes over what is there although it was asked not to: commits would be lost without an error."""


class EncoderMismatch(GalleryError):
    """The gallery was built with another encoder, version or preprocessing than the one asked for."""


class BenchmarkError(RasrError):
    """A benchmark's folders do not fit together: files without partner, wrong sizes, or no pictures at all."""


class LeakFound(BenchmarkError):
    """A test picture, or a near-duplicate of one, is among the references: every figure would be worthless."""


class MethodError(RasrError):
    """A method under evaluation cannot be run: checkout missing, command failed, or time limit passed."""


class WeightsError(RasrError):
    """Model weights cannot be used."""


class WeightsMissing(WeightsError):
    """The weights are not on this machine, and downloading is off or failed."""


class WeightsCorrupt(WeightsError):
    """The weights file is truncated, has the wrong architecture or hash, or is of a kind that could run code."""


class ExtraMissing(RasrError):
    """An optional package is needed; the message names the extra that installs it."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional package. Install it with: {install_command(extra)}")
        self.feature = feature
        self.extra = extra


def install_command(extra: str) -> str:
    """The command that installs an extra: into the checkout that this code runs from, else from the package index."""
    root = pathlib.Path(__file__).parents[2]
    if not ((root / "pyproject.toml").is_file() and (root / "src" / "rasr").is_dir()):
        return f"pip install 'rasr[{extra}]'"
    place = "." if root == pathlib.Path.cwd() else str(root)
    return f"pip install -e {shlex.quote(f'{place}[{extra}]')}"


class OutOfMemory(RasrError):
    """The smallest tile that makes sense still does not fit into memory."""


class ClusterError(RasrError):
    """A cluster cannot be started or reached, or what is to run there cannot."""


class DatasetError(RasrError):
    """A dataset folder cannot be built, read or checked."""


class DatasetBusy(DatasetError):
    """Another process is building in the same folder."""


class SourceError(DatasetError):
    """A source of photos cannot be used: key missing or refused, address wrong, or it answers nonsense."""


class TrainingDiverged(RasrError):
    """The loss or the gradient is not a number any more; the last checkpoint still is from before that."""


def error_facts(error: RasrError) -> dict[str, str]:
    """An error as another process is told of it; :func:`error_of` makes it again."""
    return {"type": type(error).__name__, "message": str(error)}


def error_of(facts: dict[str, object]) -> RasrError:
    """The error that another process met."""
    kind = globals().get(str(facts.get("type")), RasrError)
    if not (isinstance(kind, type) and issubclass(kind, RasrError)):
        kind = RasrError
    error: RasrError = kind.__new__(kind)
    error.args = (str(facts.get("message")),)
    return error
