"""Object storage: its addresses, opening a place there, and whether that can be trusted.

Credentials come from the environment alone (``AWS_*`` and what gs:// and az:// read) and never get into a message.
"""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from rasr.errors import ExtraMissing, StorageRefused, UsageError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES = ("s3://", "gs://", "az://")
LOCAL = "lance://"
"""Begins the address of a Lance table in a folder of this machine."""
RETRY_SECONDS = 60
"""For so long a request that failed is repeated by the client, at growing intervals."""
LONGEST_REASON = 200
_TOLD = ("AWS_", "GOOGLE_", "AZURE_")
"""Begins the names of variables that clients read."""
_ENDINGS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "SIGNATURE", "SAS", "KEY_ID")
"""Of names of environment variables whose values no message shows."""


def is_address(text: str | Path) -> bool:
    """True for an address on object storage."""
    return str(text).startswith(SCHEMES)


def checked_address(text: str) -> str:
    """``text`` without a slash at its end. Raises UsageError, which repeats none of it, when it may hold a secret."""
    scheme, _, rest = text.partition("://")
    if re.search(r"[@?#]", rest.partition("/")[0]) or "?" in rest:
        raise UsageError(
            f"A {scheme}:// address is a bucket and a path, without user, password or '?'. Credentials belong into "
            "environment variables (docs/environment.md)."
        )
    if not rest.partition("/")[0]:
        raise UsageError(f"{text}: name a bucket, and a path in it: {scheme}://BUCKET/PATH")
    return text.rstrip("/")


def open_place(address: str | Path, feature: str) -> ObjectStore:
    """The object store below ``address``, or below a folder, which is made when it is missing.

    Nothing is asked of it. ``feature`` is what needs it, for the message of ExtraMissing.
    """
    if is_address(address):
        scheme, _, rest = str(address).partition("://")
        bucket, _, prefix = rest.partition("/")
        told = tuple(item for item in sorted(os.environ.items()) if item[0].startswith(_TOLD))
        return _opened(scheme, bucket, prefix, told, feature)
    try:
        from obstore import store
    except ImportError as error:
        raise ExtraMissing(feature, "lance") from error
    return store.LocalStore(prefix=Path(address), mkdir=True)


@lru_cache(maxsize=32)
def _opened(scheme: str, bucket: str, prefix: str, _told: tuple[object, ...], feature: str) -> ObjectStore:
    """A client, kept with its connections for as long as the environment says the same."""
    try:
        from obstore import store
    except ImportError as error:
        raise ExtraMissing(feature, "lance") from error
    kind = {"s3": store.S3Store, "gs": store.GCSStore, "az": store.AzureStore}[scheme]
    opened: ObjectStore = kind(
        bucket, prefix=prefix or None, retry_config={"retry_timeout": timedelta(seconds=RETRY_SECONDS)}
    )
    return opened


def probe(place: ObjectStore, address: str, loss: str) -> None:
    """Write one key twice on condition that it is new; ``loss`` is what would be lost where both succeed.

    Raises StorageRefused then, and what obstore raises where the first is not accepted.
    """
    import obstore
    from obstore.exceptions import AlreadyExistsError

    key = f"probe-{secrets.token_hex(8)}"
    obstore.put(place, key, b"rasr 1", mode="create")
    try:
        obstore.put(place, key, b"rasr 2", mode="create")
    except AlreadyExistsError:
        return
    finally:
        with suppress(Exception):  # a key that may not be deleted harms nobody
            obstore.delete(place, key)
    raise StorageRefused(
        f"The storage at {address} writes over what is there although it was asked not to (a PUT with If-None-Match): "
        f"{loss}. Use a storage that honours conditional writes (docs/scale.md lists some), or keep it on a local disk."
    )


def reason(error: BaseException) -> str:
    """The first line of an error, without secrets and not long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    for name, value in os.environ.items():
        if name.endswith(_ENDINGS) and len(value) > 3:
            text = text.replace(value, "***")
    text = re.sub(r"(://[^\s?\"']*)\?[^\s\"']*", r"\1", text)  # a signature stands in an address's query
    text = re.sub(r"//[^/\s@\"']+@", "//***@", text)
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON].rstrip()} …"
