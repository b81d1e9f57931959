"""Configuration of the service: where it listens, where its data lie, what it accepts and how long it keeps."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock

from rasr.errors import UsageError
from rasr.files import read_text
from rasr.gallery.stores import open_store
from rasr.generator import DEFAULT_PRESET, PRESETS
from rasr.images.picture import Metadata
from rasr.object_path import expand

MEBIBYTE = 2**20
FORMATS = ("png", "jpg", "webp", "tiff")
MOST_REFERENCES = 8
METADATA: Metadata = "no-location"
"""What results carry of a picture's metadata unless a client asks for more or less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig:
    """Everything that is chosen when the service starts. Raises UsageError for values out of range."""

    data: Path
    """Folder that holds the queue, what was uploaded, and results."""
    host: str = "127.0.0.1"
    port: int = 8000
    """0: any that is free."""
    galleries: Sequence[str | Path] = ()
    """Galleries, by folder or address, and folders of photos, to be offered; they are only read."""
    token: str = ""
    """What clients must show as ``Authorization: Bearer``; empty: nothing."""
    hosts: Sequence[str] = ()
    """Names by which clients may call besides addresses and localhost: those of a proxy in front."""
    queue: int = 200
    """Jobs that may wait."""
    keep_days: float = 30.0
    """Age at which ended jobs are removed with their files."""
    keep_bytes: int = 20 * 2**30
    """Bytes of ended jobs that are kept; the oldest go first."""
    grace: float = 20.0
    """Seconds that a stop waits for the running job, which is put back into the queue afterwards."""
    preset: str = DEFAULT_PRESET
    device: str = "auto"
    max_bytes: int = 100 * MEBIBYTE
    """Largest body of a request."""
    max_pixels: int = 25_000_000
    """Largest picture that is decoded; memory of the decoding processes grows with it."""
    max_result: int = 200_000_000
    """Pixels of the largest result."""
    decoders: int = 2
    """Processes that decode."""
    hang: float = 900.0
    """Seconds without a sign of life after which the worker is killed, and its job fails."""
    decode_seconds: float = 2.5
    """Seconds that decoding a small picture may take; a second more for each megapixel."""

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise UsageError(f"Unknown preset '{self.preset}'. Choose one of: {', '.join(PRESETS)}.")
        for name, least in {"queue": 1, "decoders": 1, "max_bytes": 1024, "max_pixels": 1, "keep_bytes": 0}.items():
            if getattr(self, name) < least:
                raise UsageError(f"The option {name.replace('_', '-')} must be {least} or more.")
        if self.grace < 0 or self.keep_days < 0:
            raise UsageError("Times must be 0 or more.")
        if not self.hang > 0:
            raise UsageError("The option hang must be more than 0.")
        for place in self.galleries:
            open_store(place)  # an address that is none, or holds a secret
        if not 0 <= self.port < 2**16:
            raise UsageError(f"The port must lie between 0 and 65535, not {self.port}.")


def read_token(file: Path | None) -> str:
    """The token in ``file``, else in the environment's ``RASR_TOKEN``; empty without either.

    Raises UsageError for a token that no header can carry, or of fewer than 16 characters, which can be guessed.
    """
    token = os.environ.get("RASR_TOKEN", "") if file is None else read_text(file, "token file", UsageError)
    token = token.strip()
    if (file is not None or token) and not re.fullmatch(r"[\x21-\x7e]{16,512}", token):
        where = "RASR_TOKEN" if file is None else str(file)
        raise UsageError(f"{where}: a token is one line of 16 to 512 ASCII letters, digits and signs without spaces.")
    return token


def take_folder(
    config: ServiceConfig, lock: str, folders: Sequence[str] = (), *, seconds: float = 0.0
) -> filelock.BaseFileLock:
    """Make the data folder and ``folders`` in it, and hold a lock there, waiting some seconds for it.

    Raises UsageError when the folder cannot be used, or another service has it.
    """
    data = expand(config.data).resolve()
    try:
        for folder in (data, *(data / name for name in folders)):
            folder.mkdir(parents=True, exist_ok=True)
        held = filelock.FileLock(data / lock)
        held.acquire(timeout=seconds)
    except filelock.Timeout as error:
        raise UsageError(f"{data}: another service uses this folder. Choose another one with --data.") from error
    except OSError as error:
        raise UsageError(f"{data}: cannot be used for the service's data ({error.strerror}).") from error
    return held
