"""Assembly of the folder from the photos that are kept: layout, low-quality inputs, gallery."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from rasr.dataset.config import DatasetConfig
from rasr.dataset.licences import licence_url
from rasr.dataset.manifest import MANIFEST, Record, place_file, read_manifest
from rasr.dataset.sources import Category
from rasr.dataset.verdict import Kept
from rasr.errors import OutputError
from rasr.files import sha256_file
from rasr.gallery import Gallery, is_gallery
from rasr.progress import Progress

LQ_MANIFEST = "lq/degradation.json"


def make_records(
    kept: Mapping[str, Sequence[Kept]],
    assigned: Mapping[str, str],
    categories: Sequence[Category],
    reviewed: Mapping[str, str],
) -> list[Record]:
    """Make the manifest's records of the assigned photos, sorted by file."""
    scientific = {category.name: category.scientific_name for category in categories}
    groups: dict[object, str] = {}
    for one in (one for photos in kept.values() for one in photos):
        name = one.row.photo_id
        groups[one.group] = min(groups.get(one.group, name), name)
    records = []
    for one in (one for photos in kept.values() for one in photos if one.row.photo_id in assigned):
        row, offered, measures = one.row, one.row.candidate, one.measures
        name, split = row.photo_id, assigned[row.photo_id]
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


def assemble(
    out: Path, config: DatasetConfig, records: Sequence[Record], stored: Mapping[str, Path], progress: Progress
) -> None:
    """Fill the folder: photos from their ``stored`` files (by id), low-quality inputs, gallery.

    Raises OutputError.
    """
    _place_files(out, records, stored)
    if config.lq.enabled:
        _make_low_quality(out, records, config, progress)
    if config.gallery:
        _make_gallery(out, records, config.encoder, progress)


def _place_files(out: Path, records: Sequence[Record], stored: Mapping[str, Path]) -> None:
    """Put the photos where the manifest says; remove those that only an earlier manifest names.

    Files that no manifest of this dataset names are never touched.
    """
    before = read_manifest(out) if (out / MANIFEST).exists() else []
    wanted = {record.file for record in records}
    try:
        for old in before:
            if old.file not in wanted:
                _inside(out, old.file).unlink(missing_ok=True)
        for record in records:
            target, source = out / record.file, stored[record.id]
            if not target.exists() or not (target.samefile(source) or sha256_file(target) == record.sha256):
                place_file(source, target)
    except OSError as error:
        raise OutputError(f"Cannot write the photos of {out}: {error.strerror or error}.") from error


def _make_low_quality(out: Path, records: Sequence[Record], config: DatasetConfig, progress: Progress) -> None:
    """Degrade the test photos: ``lq/<category>/<id>.png``, their targets ``hr/…``, recipes.

    Files already made by the same recipe from the same photo are kept.
    """
    from rasr.degrade import draw
    from rasr.degrade.files import DegradeJob, Entry, Manifest, degrade_file

    path, settings, seed = out / LQ_MANIFEST, config.lq, config.seed
    crop = settings.crop or None
    previous = Manifest.read(path) if path.exists() else None
    known = {entry.name: entry for entry in previous.pictures if previous.crop == crop} if previous else {}
    # The dataset's own manifest is still that of the last build: it tells which photos have changed since.
    same = {old.file: old.sha256 for old in read_manifest(out)} if (out / MANIFEST).exists() else {}
    tests = [record for record in records if record.split == "test"]
    entries: list[Entry] = []
    for done, record in enumerate(tests):
        progress("degrading", done, len(tests))
        output = f"{record.category}/{record.id}.png"
        recipe = draw(settings.preset, scale=settings.scale, seed=seed, name=record.file)
        lq, hr = out / "lq" / output, out / "hr" / output
        entry = known.get(record.file)
        current = entry and (entry.recipe, entry.output) == (recipe, output) and lq.exists() and hr.exists()
        if entry and current and same.get(record.file) == record.sha256:
            entries.append(entry)
        else:
            job = DegradeJob(record.file, out / record.file, lq, output, recipe, hr)
            entries.append(degrade_file(job, crop=crop, overwrite=True))
    gone = {entry.output for entry in previous.pictures} if previous else set()
    for output in gone - {entry.output for entry in entries}:
        for folder in ("lq", "hr"):
            _inside(out, f"{folder}/{output}").unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    Manifest(seed=seed, crop=crop, pictures=tuple(entries)).write(path, overwrite=True)
    progress("degrading", len(tests), len(tests))


def _make_gallery(out: Path, records: Sequence[Record], encoder: str, progress: Progress) -> None:
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
    """Return the path of a manifest's file; raises OutputError for one outside of the folder."""
    path = out / file
    if not path.resolve().is_relative_to(out.resolve()):
        raise OutputError(f"The manifest names {file}, which is not inside {out}; it was not written by RASR.")
    return path
