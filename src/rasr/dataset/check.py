"""Check of a dataset folder, whoever made it: files, hashes, sizes, licences, leaks."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rasr.dataset.assemble import LQ_MANIFEST
from rasr.dataset.card import read_info
from rasr.dataset.licences import FREE_LICENCES, allowed
from rasr.dataset.manifest import MANIFEST, Record, file_inside, read_manifest
from rasr.dataset.splits import SPLITS
from rasr.dataset.verdict import photographers, related_hashes, related_pairs
from rasr.errors import ConfigError, DatasetError, PictureError, RasrError
from rasr.files import sha256_file
from rasr.gallery.encoders import Encoder, load_encoder
from rasr.gallery.photo import NEAR_BITS, NEAR_COSINE, perceptual_hash
from rasr.images import find_pictures, read_header, read_picture
from rasr.progress import Progress

BATCH = 16
ROUNDING = 0.002
"""How much a cosine may differ from the build's, which compared embeddings in half precision."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault of a dataset, or a fact worth knowing."""

    level: Literal["error", "note"]
    kind: str
    """missing, hash, size, unreadable, licence, leak, count, review, unlisted, …"""
    message: str


@dataclass(slots=True)
class CheckReport:
    """Result of a check: everything found in one folder."""

    folder: Path
    photos: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True when nothing is wrong; notes do not count."""
        return all(finding.level != "error" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Return all fields, for ``--json``."""
        return {"folder": str(self.folder), "ok": self.ok} | {k: v for k, v in asdict(self).items() if k != "folder"}

    def error(self, kind: str, message: str) -> None:
        """Add a fault."""
        self.findings.append(Finding("error", kind, message))

    def note(self, kind: str, message: str) -> None:
        """Add a fact worth knowing."""
        self.findings.append(Finding("note", kind, message))


def check_dataset(
    folder: str | Path, *, quick: bool = False, encoder: str | None = None, progress: Progress = lambda *_: None
) -> CheckReport:
    """Verify a dataset folder against its manifest; without one, what pixels can tell.

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
    """Yield what a flickr30 layout without a manifest tells about its photos."""
    found = False
    for split in sorted(folder.glob("*/*")) if folder.is_dir() else ():
        if split.is_dir() and split.name in SPLITS:
            found = True
            for path in find_pictures([split]) if any(split.iterdir()) else ():
                yield _bare_record(path.relative_to(folder).as_posix())
    if not found:
        raise DatasetError(f"{folder} has neither a {MANIFEST} nor <category>/train|test|reference folders.")


def _bare_record(file: str) -> Record:
    """Make a record of which nothing but the file's place is known."""
    category, split, _ = file.split("/", 2)
    values: dict[str, Any] = {entry.name: "" for entry in fields(Record)}
    values |= {"id": file, "category": category, "split": split, "file": file, "deviation": 0.0}
    return Record(**values | dict.fromkeys(("bytes", "width", "height"), 0))


def _check_manifest(report: CheckReport, records: Sequence[Record], info: Mapping[str, Any]) -> None:
    """Report faults in what the manifest says by itself: names, licences, authors, counts."""
    for name, count in Counter(record.id for record in records).items():
        if count > 1:
            report.error("manifest", f"{name} is in the manifest {count} times.")
    listed = info.get("filters", {}).get("licences", FREE_LICENCES)
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
    """Report people, by account or by name, whose photos are in two splits."""
    splits: dict[str, dict[str, Record]] = defaultdict(dict)
    for record in records:
        for who in photographers(record):
            splits[who].setdefault(record.split, record)
    leaks = {tuple(sorted(record.file for record in by.values())): by for by in splits.values() if len(by) > 1}
    for files, by in leaks.items():
        author = next(record.author for record in by.values() if record.file == files[0])
        report.error("leak", f"Photos by {author} are in several splits: {', '.join(files)}.")
    unknown = sum(not photographers(record) for record in records)
    if unknown:
        report.note("author", f"{unknown} photos have no known author: the same one in two splits cannot be excluded.")


def _check_unlisted(report: CheckReport, records: Sequence[Record]) -> None:
    """Report pictures in the layout that the manifest does not know."""
    known = {record.file for record in records}
    for split in sorted(report.folder.glob("*/*")):
        if split.is_dir() and split.name in SPLITS and any(split.iterdir()):
            for path in sorted(split.rglob("*")):
                file = path.relative_to(report.folder).as_posix()
                if path.is_file() and not path.name.startswith(".") and file not in known:
                    report.error("unlisted", f"{file} is not in the manifest: no licence, no author.")


def _check_low_quality(report: CheckReport, records: Sequence[Record], info: Mapping[str, Any]) -> None:
    """Report test photos without degraded input and target of the sizes that the recipes give."""
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
    """Report a missing, exchanged or resized file; False when it is not worth decoding."""
    try:
        path = file_inside(report.folder, record)
    except DatasetError as error:
        report.error("manifest", str(error))
        return False
    if not path.is_file():
        report.error("missing", f"{record.file} is missing.")
        return False
    if record.sha256 and sha256_file(path) != record.sha256:
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
    """Report the same bytes twice, within a split or across."""
    by_hash: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_hash[sha256_file(report.folder / record.file)].append(record)
    for same in by_hash.values():
        if len(same) > 1:
            kind = "leak" if len({record.split for record in same}) > 1 else "duplicate"
            report.error(kind, f"The same file several times: {', '.join(record.file for record in same)}.")


def _check_pixels(
    report: CheckReport, records: Sequence[Record], encoder: Encoder, similarity: float, progress: Progress
) -> None:
    """Report near-duplicates across splits: by hash everywhere, by embedding in a category."""
    readable: list[Record] = []
    hashes: list[str] = []
    batch: list[NDArray[np.float32]] = []
    vectors: list[NDArray[np.float16]] = []
    for done, record in enumerate(records):
        progress("comparing", done, len(records))
        try:
            pixels = read_picture(report.folder / record.file).opaque()
        except RasrError as error:
            report.error("unreadable", str(error))
            continue
        readable.append(record)
        hashes.append(f"{perceptual_hash(pixels):016x}")
        batch.append(encoder.preprocess(pixels))
        if len(batch) == BATCH:
            vectors.append(encoder.embed(np.stack(batch)).astype(np.float16))  # as the build compares them
            batch.clear()
    if batch:
        vectors.append(encoder.embed(np.stack(batch)).astype(np.float16))
    progress("comparing", len(records), len(records))
    told = set[tuple[int, int]]()
    for one, other, bits in related_hashes(hashes, NEAR_BITS):
        if readable[one].split != readable[other].split:
            told.add((one, other))
            files = f"{readable[one].file} and {readable[other].file}"
            report.error("leak", f"{files} are the same photo ({bits} of 64 bits differ).")
    for category in sorted({record.category for record in readable}):
        chosen = [index for index, record in enumerate(readable) if record.category == category]
        own = np.concatenate(vectors)[chosen].astype(np.float32)
        for first, second, cosine in related_pairs(own, similarity):
            one, other = chosen[first], chosen[second]
            if readable[one].split != readable[other].split and (one, other) not in told:
                files = f"{readable[one].file} and {readable[other].file}"
                report.error("leak", f"{files} show the same (cosine {cosine:.3f}).")
