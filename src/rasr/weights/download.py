"""Weights downloaded, from a hub or an address, by one rule, and only because a user asked for it.

Over https alone, redirects included; never more bytes than announced; resumed where it stopped; moved into place when
the hash is the catalogue's, the one the hub announces for the commit, and the first download's, as far as these are
known. The first download is recorded in ``$RASR_HOME/models/pins.json``.
"""

import contextlib
import hashlib
import http.client
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rasr.errors import WeightsCorrupt, WeightsMissing
from rasr.files import cache_dir, home, offline, sha256_file, sync_folder
from rasr.progress import Progress
from rasr.weights.catalogue import ModelWeights, entry
from rasr.weights.locate import find, first_download, hub_folder, record_download, variants

_BLOCK = 1 << 20
_TIMEOUT = 30
_SLACK = 1.25 * 2**20
"""Bytes a stated megabyte may have: sizes are rounded, and some publishers count in MiB."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file to be fetched, and what is known of it."""

    name: str
    url: str
    size: int
    """Bytes: as the hub announces them, else the most there may be."""
    sha256: str = ""
    """As the hub announces it for a large file."""
    git: str = ""
    """As the hub announces it for a small file: the hash that git gives it."""


@dataclass(frozen=True, slots=True)
class Download:
    """Plan of a download; nothing is fetched before :meth:`run`."""

    weights: ModelWeights
    source: str
    """Repository on the hub, or address."""
    commit: str
    """Of the repository; empty for an address."""
    files: tuple[RemoteFile, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(file.size for file in self.files)

    def run(self, progress: Progress | None = None) -> Path:
        """Fetch, check, record; returns where the weights are. Raises WeightsMissing, WeightsCorrupt or OutputError.

        ``progress`` is told each file's name, and how many of its bytes are there.
        """
        from filelock import FileLock

        _require_network()
        with FileLock(cache_dir("models") / ".download.lock"):
            first = first_download(self.source)
            known = first.get("sha256", {}) if first.get("commit", "") == self.commit else {}
            hashes = {file.name: self._fetch(file, known.get(file.name, ""), progress) for file in self.files}
            record_download(self.source, self.commit, known | hashes)
        if found := find(self.weights.name):
            return found
        raise WeightsMissing(f"{self.weights.name} was downloaded from {self.source}, but is not complete.")

    def _fetch(self, file: RemoteFile, recorded: str, progress: Progress | None) -> str:
        wanted = {
            "the catalogue states": self.weights.sha256.get(file.name, ""),
            "the hub announced": file.sha256,
            "the first download had": recorded,
        }
        if not self.commit:
            return _fetch(file, home() / "models" / (self.weights.own or file.name), wanted, progress)
        folder = hub_folder(self.source)
        blob = folder / "blobs" / (file.sha256 or file.git or hashlib.sha256(file.url.encode()).hexdigest()[:40])
        found = _fetch(file, blob, wanted, progress)
        link = folder / "snapshots" / self.commit / file.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        try:
            link.symlink_to(os.path.relpath(blob, link.parent))
        except OSError:  # no links on this file system: the hub's own library puts the file there, too
            blob.replace(link)
        return found


def plan_download(name: str, *, half: bool = False) -> Download:
    """Plan the download of weights, asking the hub what there is at the commit that is stated or was fetched first.

    ``half`` prefers fp16 files. Raises WeightsMissing: not to be downloaded, offline, gone, or larger than stated.
    """
    weights = entry(name)
    limit = int(weights.megabytes * _SLACK)
    if weights.url:
        _require_network()
        return Download(weights, weights.url, "", (RemoteFile(weights.files[0], weights.url, limit),))
    if not weights.repositories:
        raise WeightsMissing(f"{name} cannot be downloaded by RASR. {weights.how_to_get}")
    plan = _ask_hub(weights, half=half)
    if plan.size > limit:
        size = f"{plan.size / 1e6:,.0f} MB where {weights.megabytes:,} are stated"
        raise WeightsMissing(f"{plan.source} announces {size}: {name} is not downloaded.")
    return plan


def _ask_hub(weights: ModelWeights, *, half: bool) -> Download:
    """Plan with the first repository that the hub still has, and that has all files."""
    from huggingface_hub import HfApi, constants

    _require_network()
    _require_secure(constants.ENDPOINT)
    # The errors of the hub's HTTP client, which has changed twice, are not all OSErrors.
    http_errors = [sys.modules[client].HTTPError for client in ("httpx", "httpx2") if client in sys.modules]
    refused = []
    for source in weights.repositories:
        commit = weights.revision or first_download(source).get("commit")
        try:
            facts = HfApi().model_info(source, revision=commit, files_metadata=True)
            files = tuple(_announced(weights, source, facts, half=half))
        except (OSError, ValueError, *http_errors) as error:
            refused.append(f"{source} ({str(error).strip().partition(chr(10))[0] or type(error).__name__})")
        else:
            return Download(weights, source, str(facts.sha), files)
    raise WeightsMissing(f"{weights.name} cannot be had from the hub: {', '.join(refused)}. {weights.how_to_get}")


def _announced(weights: ModelWeights, source: str, facts: Any, *, half: bool) -> Iterator[RemoteFile]:
    """Files as the hub announces them. Raises ValueError when one is missing, or a hash is none."""
    from huggingface_hub import hf_hub_url

    there = {sibling.rfilename: sibling for sibling in facts.siblings or ()}
    for wanted in weights.files:
        name = next((name for name in variants(wanted, half=half) if name in there), None)
        if name is None:
            raise ValueError(f"has no {wanted}")
        commit, large, small = str(facts.sha), there[name].lfs, there[name].blob_id
        sha256, git = (str(large.sha256), "") if large else ("", str(small or ""))
        if not all(re.fullmatch("[0-9a-f]*", digits) for digits in (commit, sha256, git)):
            raise ValueError("announces a hash that is none")  # it would become the name of a file
        yield RemoteFile(name, hf_hub_url(source, name, revision=commit), int(there[name].size or 0), sha256, git)


def _fetch(file: RemoteFile, target: Path, wanted: dict[str, str], progress: Progress | None) -> str:
    """Download a file to ``target``, unless a good one is there, and return its SHA-256."""
    if target.is_file():
        with contextlib.suppress(WeightsCorrupt):
            return _checked(target, file, wanted)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    try:
        if not part.is_file() or part.stat().st_size != file.size:
            _append(file, part, progress)
        found = _checked(part, file, wanted)
    except WeightsCorrupt:
        part.unlink()
        raise
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError) and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()
        raise WeightsMissing(f"{file.url} could not be fetched ({error}). Try again: it goes on from there.") from error
    part.replace(target)
    sync_folder(target.parent)
    return found


def _checked(path: Path, file: RemoteFile, wanted: dict[str, str]) -> str:
    found = sha256_file(path)
    for who, digits in wanted.items():
        if not found.startswith(digits):
            raise WeightsCorrupt(f"{file.url} has SHA-256 {found[:16]}…, but {who} {digits[:16]}…; it was not kept.")
    if file.git:
        content = path.read_bytes()
        if hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() != file.git:
            raise WeightsCorrupt(f"{file.url} is not the file that the hub announced; it was not kept.")
    return found


def _append(file: RemoteFile, part: Path, progress: Progress | None) -> None:
    """Fetch what is missing of a file."""
    have = part.stat().st_size if part.is_file() else 0
    with _open(file.url, have) as answer:
        if answer.status != http.client.PARTIAL_CONTENT:
            have = 0
        elif not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink()
            raise OSError("the server sent another part than was asked for")
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        with part.open("ab" if have else "wb") as out:
            while max(have, total or 0) <= file.size and (block := answer.read(_BLOCK)):
                out.write(block)
                have += len(block)
                if progress:
                    progress(file.name, have, total or file.size)
            out.flush()
            os.fsync(out.fileno())
    if max(have, total or 0) > file.size:
        part.unlink()
        raise WeightsMissing(f"{file.url} is larger than the {file.size / 1e6:,.1f} MB it may have; it was not kept.")
    if total is not None and have < total:
        raise OSError(f"the connection ended after {have:,} of {total:,} bytes")


def _open(url: str, start: int) -> Any:
    """Open an address from byte ``start`` on; with the hub's token where it is the hub's, which is not passed on."""
    from huggingface_hub import constants, get_token

    _require_secure(url)
    headers = {"User-Agent": "rasr", "Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the scheme was looked at
    if url.startswith(f"{constants.ENDPOINT}/") and (token := get_token()):
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    direct = [urllib.request.ProxyHandler({})] if _on_this_machine(url) else []
    return urllib.request.build_opener(_Redirects, *direct).open(request, timeout=_TIMEOUT)


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        _require_secure(newurl, local=_on_this_machine(req.full_url))
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_secure(url: str, *, local: bool = True) -> None:
    """Raise WeightsMissing unless an address is https or, where ``local``, a server on this very machine."""
    if urlsplit(url).scheme != "https" and not (local and _on_this_machine(url)):
        raise WeightsMissing(f"{url} is not https: nothing is downloaded from there.")


def _on_this_machine(url: str) -> bool:
    return urlsplit(url).scheme == "http" and urlsplit(url).hostname in {"127.0.0.1", "::1", "localhost"}


def _require_network() -> None:
    if offline():
        raise WeightsMissing("Downloading is off: RASR_OFFLINE or HF_HUB_OFFLINE is set.")
