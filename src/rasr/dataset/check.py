"""Checking a dataset folder that already exists, whoever made it: files, hashes, sizes, licences, leaks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rasr.dataset.assemble import LQ_MANIFEST
from rasr.dataset.card import read_info
from rasr.dataset.duplicates import hash_array, related_hashes
from rasr.dataset.gather import Progress
from rasr.dataset.licences import FREE, allowed
from rasr.dataset.manifest import MANIFEST, Record, read_manifest
from rasr.dataset.measure import sha256_of
from rasr.dataset.splits import SPLITS
from rasr.dataset.verdict import is_anonymous
from rasr.errors import ConfigError, DatasetError, PictureError, RasrError
from rasr.gallery.duplicates import NEAR_BITS, NEAR_COSINE, perceptual_hash
from rasr.gallery.encoders import Encoder, load_encoder
from rasr.images import find_pictures, read_header, read_picture

__all__ = ["CheckReport", "Finding", "check_dataset"]

BATCH = 16
ROUNDING = 0.002
"""How much a cosine may differ from the build's, which compared embeddings in half precision."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or worth knowing."""

    level: Literal["error", "note"]
    kind: str
    """missing, hash, size, unreadable, licence, leak, count, review, unlisted, …"""
    message: str


@dataclass(slots=True)
class CheckReport:
    """Everything found in one folder."""

    folder: Path
    photos: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; notes do not count."""
        return all(finding.level != "error" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """All fields, for ``--json``."""
        return {"folder": str(self.folder), "ok": self.ok} | {k: v for k, v in asdict(self).items() if k != "folder"}

    def error(self, kind: str, message: str) -> None:
        """Add something wrong."""
        self.findings.append(Finding("error", kind, message))

    def note(self, kind: str, message: str) -> None:
        """Add something worth knowing."""
        self.findings.append(Finding("note", kind, message))


def check_dataset(
    folder: str | Path, *, quick: bool = False, encoder: str | None = None, progress: Progress = lambda *_: None
) -> CheckReport:
    """Verify a dataset folder. With a manifest everything is checked against it; without one, what pixels can tell.

    Near-duplicates across splits are looked for in the pixels themselves, by perceptual hash and by embedding, not in
    what the manifest says of them. ``quick`` leaves the pixels alone: hashes of files, sizes, licences, authors.
    Raises DatasetError when the folder is no dataset at all.
    """
    folder = Path(folder)
    info = read_info(folder)
    report = CheckReport(folder)
    if (folder / MANIFEST).exists():
        records = read_manifest(folder)
        _check_manifest(report, records, info)
        _check_unlisted(report, records)
        _check_low_quality(report, records, info)
    else:
        records = list(_records_of(folder))
        report.note("manifest", f"No {MANIFEST}: licences, authors and hashes cannot be checked.")
    report.photos = len(records)
    whole = [record for record in records if _check_file(report, record, quick=quick)]
    _check_same_file(report, whole)
    if not quick:
        similarity = float(info.get("splits", {}).get("related_similarity", NEAR_COSINE)) + ROUNDING
        _check_pixels(
            report, whole, load_encoder(encoder or info.get("encoder") or "effnet-lite0"), similarity, progress
        )
    return report


def _records_of(folder: Path) -> Iterator[Record]:
    """What a flickr30 layout without a manifest tells about its photos."""
    found = False
    for split in sorted(folder.glob("*/*")) if folder.is_dir() else ():
        if split.is_dir() and split.name in SPLITS:
            found = True
            for path in find_pictures([split]) if any(split.iterdir()) else ():
                yield _bare_record(path.relative_to(folder).as_posix())
    if not found:
        raise DatasetError(f"{folder} has neither a {MANIFEST} nor <category>/train|test|reference folders.")


def _bare_record(file: str) -> Record:
    """A record of which nothing but the file's place is known."""
    category, split, _ = file.split("/", 2)
    values: dict[str, Any] = {entry.name: "" for entry in fields(Record)}
    values |= {"id": file, "category": category, "split": split, "file": file, "deviation": 0.0}
    return Record(**values | dict.fromkeys(("bytes", "width", "height"), 0))


def _check_manifest(report: CheckReport, records: Sequence[Record], info: Mapping[str, Any]) -> None:
    """What the manifest says by itself: names, licences, authors, counts."""
    for name, count in Counter(record.id for record in records).items():
        if count > 1:
            report.error("manifest", f"{name} is in the manifest {count} times.")
    listed = info.get("filters", {}).get("licences", FREE)
    for record in records:
        if record.split not in SPLITS:
            report.error("manifest", f"{record.file}: '{record.split}' is not a split.")
        if not record.licence:
            report.error("licence", f"{record.file}: licence unknown.")
        elif not allowed(record.licence, listed):
            report.error("licence", f"{record.file}: {record.licence} is not on the list ({', '.join(listed)}).")
        if record.licence.startswith("CC-BY") and not record.author:
            report.error("licence", f"{record.file}: {record.licence} asks for the author's name, and there is none.")
        if record.review == "drop":
            report.error(
                "review", f"{record.file}: dropped in the review; run 'rasr dataset build' again to replace it."
            )
    if info.get("splits", {}).get("by_photographer", True):
        _check_photographers(report, records)
    wanted = info.get("splits", {})
    counts = Counter((record.category, record.split) for record in records)
    names = [category["name"] for category in info.get("categories", ())] or sorted({r.category for r in records})
    for category in names:
        for split in SPLITS:
            if split in wanted and counts[category, split] != wanted[split]:
                report.error("count", f"{category}/{split}: {counts[category, split]} photos, not {wanted[split]}.")


def _check_photographers(report: CheckReport, records: Sequence[Record]) -> None:
    """One person, by account or by name, in two splits."""
    splits: dict[str, dict[str, str]] = defaultdict(dict)
    for record in records:
        if not is_anonymous(record.author):
            for who in {
                f"{record.source}:{record.author_id or record.author}",
                " ".join(record.author.casefold().split()),
            }:
                splits[who].setdefault(record.split, record.file)
    told = set[tuple[str, ...]]()
    for files in splits.values():
        pair = tuple(sorted(files.values()))
        if len(pair) > 1 and pair not in told:
            told.add(pair)
            author = next(record.author for record in records if record.file == pair[0])
            report.error("leak", f"Photos by {author} are in several splits: {', '.join(pair)}.")
    unknown = sum(is_anonymous(record.author) for record in records)
    if unknown:
        report.note("author", f"{unknown} photos have no known author: the same one in two splits cannot be excluded.")


def _check_unlisted(report: CheckReport, records: Sequence[Record]) -> None:
    """Pictures in the layout that the manifest does not know."""
    known = {record.file for record in records}
    for split in sorted(report.folder.glob("*/*")):
        if split.is_dir() and split.name in SPLITS and any(split.iterdir()):
            for path in sorted(split.rglob("*")):
                file = path.relative_to(report.folder).as_posix()
                if path.is_file() and not path.name.startswith(".") and file not in known:
                    report.error("unlisted", f"{file} is not in the manifest: no licence, no author.")


def _check_low_quality(report: CheckReport, records: Sequence[Record], info: Mapping[str, Any]) -> None:
    """Every test photo has its degraded input and target, of the sizes that the recipes give."""
    from rasr.degrade.files import Manifest

    if not info.get("lq"):
        return
    try:
        entries = {entry.name: entry for entry in Manifest.read(report.folder / LQ_MANIFEST).pictures}
    except ConfigError as error:
        report.error("lq", str(error))
        return
    for record in (record for record in records if record.split == "test"):
        entry = entries.get(record.file)
        if entry is None:
            report.error("lq", f"{record.file} has no recipe in {LQ_MANIFEST}.")
            continue
        for kind, scale in (("lq", 1), ("hr", entry.recipe.scale)):
            file = f"{kind}/{entry.output}"
            try:
                header = read_header(report.folder / file)
            except PictureError as error:
                report.error("lq", str(error))
            else:
                size, expected = (header.width, header.height), (entry.width * scale, entry.height * scale)
                if size != expected:
                    report.error("lq", f"{file} is {size[0]}x{size[1]}, not {expected[0]}x{expected[1]}.")


def _check_file(report: CheckReport, record: Record, *, quick: bool) -> bool:
    """The file is there, is the one meant, and has the size it should; False when it is not worth decoding."""
    path = report.folder / record.file
    if not path.resolve().is_relative_to(report.folder.resolve()):
        report.error("manifest", f"{record.file} leads out of the folder.")
        return False
    if not path.is_file():
        report.error("missing", f"{record.file} is missing.")
        return False
    if record.sha256 and sha256_of(path) != record.sha256:
        report.error("hash", f"{record.file} is not the file that was downloaded (SHA-256 differs).")
    if quick and not record.width:
        return True
    try:
        header = read_header(path)
    except RasrError as error:
        report.error("unreadable", str(error))
        return False
    if record.width and (header.width, header.height) != (record.width, record.height):
        said = f"{record.width}x{record.height}"
        report.error("size", f"{record.file} is {header.width}x{header.height}, the manifest says {said}.")
    return True


def _check_same_file(report: CheckReport, records: Sequence[Record]) -> None:
    """The same bytes twice, within a split or across."""
    by_hash: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_hash[sha256_of(report.folder / record.file)].append(record)
    for same in by_hash.values():
        if len(same) > 1:
            kind = "leak" if len({record.split for record in same}) > 1 else "duplicate"
            report.error(kind, f"The same file several times: {', '.join(record.file for record in same)}.")


def _check_pixels(
    report: CheckReport, records: Sequence[Record], encoder: Encoder, similarity: float, progress: Progress
) -> None:
    """Decode everything; near-duplicates across splits by hash everywhere, by embedding within a category."""
    hashes: list[str] = []
    readable: list[Record] = []
    vectors: list[np.ndarray[Any, np.dtype[np.float16]]] = []
    batch: list[np.ndarray[Any, np.dtype[np.float32]]] = []
    for done, record in enumerate(records):
        progress("comparing", done, len(records))
        try:
            pixels = read_picture(report.folder / record.file).pixels
        except RasrError as error:
            report.error("unreadable", str(error))
            continue
        readable.append(record)
        hashes.append(f"{perceptual_hash(pixels):016x}")
        batch.append(encoder.preprocess(pixels))
        if len(batch) == BATCH:
            vectors.append(encoder.embed(np.stack(batch)).astype(np.float16))
            batch.clear()
    if batch:
        vectors.append(encoder.embed(np.stack(batch)).astype(np.float16))
    progress("comparing", len(records), len(records))
    if not readable:
        return
    told = _hash_leaks(report, readable, hashes)
    embeddings = np.concatenate(vectors)
    for category in sorted({record.category for record in readable}):
        chosen = [index for index, record in enumerate(readable) if record.category == category]
        own = embeddings[chosen].astype(np.float32)
        for place, index in enumerate(chosen[:-1]):
            for other in np.flatnonzero(own[place + 1 :] @ own[place] >= similarity):
                pair = (index, chosen[place + 1 + int(other)])
                if pair not in told and readable[pair[0]].split != readable[pair[1]].split:
                    cosine = float(own[place] @ own[place + 1 + int(other)])
                    one, two = (readable[side].file for side in pair)
                    report.error("leak", f"{one} and {two} show the same (cosine {cosine:.3f}).")


def _hash_leaks(report: CheckReport, records: Sequence[Record], hashes: Sequence[str]) -> set[tuple[int, int]]:
    """Report pairs in different splits whose perceptual hashes nearly agree; returns the pairs."""
    values = hash_array(hashes)
    pairs = set[tuple[int, int]]()
    for pair in related_hashes(values, NEAR_BITS):
        one, two = records[pair[0]], records[pair[1]]
        if one.split != two.split:
            pairs.add(pair)
            bits = int(np.bitwise_count(values[pair[0]] ^ values[pair[1]]))
            report.error("leak", f"{one.file} and {two.file} are the same photo ({bits} of 64 bits differ).")
    return pairs
