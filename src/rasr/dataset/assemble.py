"""From kept photos to the finished folder: layout, low-quality inputs, gallery."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from rasr.dataset.config import Category, LowQuality
from rasr.dataset.gather import Progress, stored_file
from rasr.dataset.licences import licence_url
from rasr.dataset.manifest import MANIFEST, Record, read_manifest
from rasr.dataset.measure import sha256_of
from rasr.dataset.verdict import Kept, photo_id
from rasr.errors import OutputError
from rasr.gallery import Gallery, is_gallery

__all__ = ["LQ_MANIFEST", "make_gallery", "make_low_quality", "make_records", "place_files"]

LQ_MANIFEST = "lq/degradation.json"


def make_records(
    kept: Mapping[str, Sequence[Kept]],
    assigned: Mapping[str, str],
    categories: Sequence[Category],
    reviewed: Mapping[str, str],
) -> list[Record]:
    """The manifest's records of the assigned photos, sorted by file."""
    scientific = {category.name: category.scientific_name for category in categories}
    groups: dict[object, str] = {}
    for one in (one for photos in kept.values() for one in photos):
        name = photo_id(one.row)
        groups[one.group] = min(groups.get(one.group, name), name)
    records = []
    for one in (one for photos in kept.values() for one in photos if photo_id(one.row) in assigned):
        row, offered, measures = one.row, one.row.candidate, one.measures
        name, split = photo_id(row), assigned[photo_id(row)]
        records.append(
            Record(
                id=name,
                category=row.category,
                scientific_name=scientific[row.category],
                split=split,
                file=f"{row.category}/{split}/{name}{measures.suffix}",
                source=offered.source,
                source_id=offered.source_id,
                page_url=offered.page_url,
                url="" if offered.source == "folder" else offered.url,
                title=offered.title,
                author=offered.author,
                author_id=offered.author_id,
                licence=offered.licence or "",
                licence_url=licence_url(offered.licence),
                sha256=measures.sha256,
                bytes=measures.size,
                width=measures.real_width,
                height=measures.real_height,
                phash=measures.phash,
                group=groups[one.group],
                deviation=one.deviation,
                review="keep" if reviewed.get(name) == "keep" else "",
            )
        )
    return sorted(records, key=lambda record: record.file)


def place_files(out: Path, records: Sequence[Record], kept: Mapping[str, Sequence[Kept]], downloads: Path) -> None:
    """Put the photos where the manifest says, and take away those that an earlier manifest put and this one does not.

    Files are linked to the downloads where the file system can, else copied. Files that no manifest of this dataset
    names are never touched. Raises OutputError.
    """
    stored = {photo_id(one.row): stored_file(downloads, one.row) for photos in kept.values() for one in photos}
    before = read_manifest(out) if (out / MANIFEST).exists() else []
    wanted = {record.file for record in records}
    try:
        for old in before:
            if old.file not in wanted:
                _inside(out, old.file).unlink(missing_ok=True)
        for record in records:
            target, source = out / record.file, stored[record.id]
            if target.exists() and (target.samefile(source) or sha256_of(target) == record.sha256):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f".{target.name}.part")
            part.unlink(missing_ok=True)
            try:
                os.link(source, part)
            except OSError:
                shutil.copyfile(source, part)
            part.replace(target)
    except OSError as error:
        raise OutputError(f"Cannot write the photos of {out}: {error.strerror or error}.") from error


def make_low_quality(out: Path, records: Sequence[Record], settings: LowQuality, seed: int, progress: Progress) -> None:
    """Degrade the test photos: ``lq/<category>/<id>.png``, their exact targets ``hr/…``, and the recipes.

    A file already made by the same recipe from the same photo is kept. Raises OutputError.
    """
    from rasr.degrade import draw
    from rasr.degrade.files import DegradeJob, Entry, Manifest, degrade_file

    path = out / LQ_MANIFEST
    old: dict[str, Entry] = {}
    if path.exists():
        previous = Manifest.read(path)
        if previous.crop == (settings.crop or None):
            old = {entry.name: entry for entry in previous.pictures}
    tests = [record for record in records if record.split == "test"]
    entries: list[Entry] = []
    for done, record in enumerate(tests):
        progress("degrading", done, len(tests))
        output = f"{record.category}/{record.id}.png"
        recipe = draw(settings.preset, scale=settings.scale, seed=seed, name=record.file)
        lq, hr = out / "lq" / output, out / "hr" / output
        known = old.get(record.file)
        if known and known.recipe == recipe and known.output == output and lq.exists() and hr.exists():
            entries.append(known)
            continue
        job = DegradeJob(record.file, out / record.file, lq, output, recipe, hr)
        entries.append(degrade_file(job, crop=settings.crop or None, overwrite=True))
    for gone in old.values():
        if gone.output not in {entry.output for entry in entries}:
            for folder in ("lq", "hr"):
                _inside(out, f"{folder}/{gone.output}").unlink(missing_ok=True)
    made = Manifest(seed=seed, crop=settings.crop or None, pictures=tuple(entries))
    path.parent.mkdir(parents=True, exist_ok=True)
    made.write(path, overwrite=True)
    progress("degrading", len(tests), len(tests))


def make_gallery(out: Path, records: Sequence[Record], encoder: str, progress: Progress) -> None:
    """Make the dataset's folder a gallery of its reference photos, with the paper's categories.

    The gallery lies in the folder itself, so that its paths are relative and the dataset can be moved and published.
    """
    wanted: dict[str, list[Path]] = defaultdict(list)
    for record in records:
        if record.split == "reference":
            wanted[record.category].append(out / record.file)
    gallery = Gallery(out, encoder=encoder)
    if is_gallery(out):
        current = {path for paths in wanted.values() for path in paths}
        if gone := [photo.path for photo in gallery.list() if photo.path not in current]:
            gallery.remove(gone)
    for done, (category, paths) in enumerate(wanted.items()):
        progress("indexing", done, len(wanted))
        gallery.add(paths, category=category)
    progress("indexing", len(wanted), len(wanted))


def _inside(out: Path, file: str) -> Path:
    """The path of a manifest's file; raises OutputError for one that leads out of the dataset's folder."""
    path = out / file
    if not path.resolve().is_relative_to(out.resolve()):
        raise OutputError(f"The manifest names {file}, which is not inside {out}; it was not written by RASR.")
    return path
