"""Build of a dataset: list, download, measure, judge, split, and only then write the folder."""

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rasr.dataset.assemble import assemble, make_records
from rasr.dataset.card import INFO, write_card
from rasr.dataset.config import DatasetConfig
from rasr.dataset.gather import choose, download, list_candidates, measure_stored
from rasr.dataset.journal import Journal
from rasr.dataset.manifest import MANIFEST, write_manifest, write_text
from rasr.dataset.review import read_decisions
from rasr.dataset.sources import Category, Source
from rasr.dataset.splits import SPLITS, Item, assign
from rasr.dataset.verdict import Kept, Verdicts, judge
from rasr.dataset.web import TRANSIENT, Web
from rasr.errors import DatasetBusy, DatasetError, OutputError
from rasr.gallery.encoders import load_encoder
from rasr.object_path import expand
from rasr.progress import Progress

BUILD_DIR = ".build"
"""Where a dataset folder keeps its journal and downloads. It may be deleted when no further build is wanted."""


@dataclass(frozen=True, slots=True)
class CategoryReport:
    """Photos of one category: found, left out, used, missing."""

    name: str
    found: int
    """Candidates that the sources listed."""
    rejected: Mapping[str, int]
    """Reason → photos left out; see :data:`rasr.dataset.verdict.REASONS`."""
    splits: Mapping[str, int]
    missing: int
    """Photos short of the wanted numbers."""


@dataclass(slots=True)
class BuildReport:
    """Result of a build."""

    folder: Path
    categories: list[CategoryReport] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """One sentence for each thing that did not work; empty when the dataset is complete."""

    @property
    def photos(self) -> int:
        """Photos in the dataset."""
        return sum(sum(category.splits.values()) for category in self.categories)

    def as_json(self) -> dict[str, Any]:
        """Return all fields, for ``--json``."""
        return {"folder": str(self.folder), "photos": self.photos, **asdict(self)} | {"folder": str(self.folder)}


def build_dataset(
    config: DatasetConfig,
    out: str | Path,
    *,
    say: Callable[[str], None] = lambda _: None,
    progress: Progress = lambda *_: None,
) -> BuildReport:
    """Build the dataset of ``config`` in the folder ``out``, or go on where a run stopped.

    Photos short, or a source that could not be used, are reported and do not stop the rest. Raises DatasetBusy,
    DatasetError when no source can be used at all, OutputError when the folder is not RASR's or the disk is full.
    """
    folder = expand(Path(out)).absolute()
    _claim(folder)
    lock = FileLock(folder / BUILD_DIR / "lock")
    try:
        with lock.acquire(timeout=0):
            return _Build(config, folder, say, progress).run()
    except Timeout:
        raise DatasetBusy(f"Another process is building in {folder}. Wait for it to end.") from None


class _Build:
    """One run, step by step."""

    def __init__(self, config: DatasetConfig, folder: Path, say: Callable[[str], None], progress: Progress) -> None:
        self.config = config
        self.folder = folder
        self.downloads = folder / BUILD_DIR / "photos"
        self.say = say
        self.progress = progress
        self.report = BuildReport(folder)
        self.decisions = read_decisions(folder)
        self.dropped = frozenset(name for name, decision in self.decisions.items() if decision == "drop")

    def run(self) -> BuildReport:
        """Run all steps; those done by an earlier run are found done."""
        journal = Journal(self.folder / BUILD_DIR / "journal.sqlite")
        try:
            journal.begin([*TRANSIENT, "lost"], self.config.encoder)
            with Web(self.config.download, self.config.agent) as web:
                sources = self.config.make_sources(web)
                categories = self._categories(sources)
                list_candidates(journal, sources, categories, self.report.problems, self.progress)
                verdicts, assigned = self._gather(journal, web, categories)
            self._finish(journal, categories, verdicts, assigned)
            journal.finish()
        finally:
            journal.close()
        return self.report

    def _categories(self, sources: Sequence[Source]) -> list[Category]:
        if self.config.category:
            return list(self.config.category)
        (folder,) = sources
        folder.ready()
        return folder.categories()

    def _gather(self, journal: Journal, web: Web, categories: Sequence[Category]) -> tuple[Verdicts, dict[str, str]]:
        """Download and measure, in rounds, until every category is full or has no more candidates."""
        names = [category.name for category in categories]
        encoder = load_encoder(self.config.encoder)
        workers = min(self.config.download.workers, os.cpu_count() or 1)
        while True:
            download(journal, web, self.downloads, self.config.download.workers, self.progress)
            measure_stored(journal, encoder, self.downloads, self.config, workers, self.progress)
            verdicts = judge(journal, self.config, names, self.dropped)
            items = [Item(one.row.photo_id, name, one.group) for name, kept in verdicts.kept.items() for one in kept]
            assigned = assign(items, self.config.splits, self.config.seed)
            short = dict.fromkeys(names, self.config.splits.total)
            for item in items:
                short[item.category] -= item.key in assigned
            if not choose(journal, self.config, verdicts.kept, short):
                return verdicts, assigned

    def _finish(
        self, journal: Journal, categories: Sequence[Category], verdicts: Verdicts, assigned: Mapping[str, str]
    ) -> None:
        """Write the folder. The manifest comes last: until then the folder is not a dataset."""
        records = make_records(verdicts.kept, assigned, categories, self.decisions)
        if not records:
            why = " ".join(self.report.problems) or "Every candidate was rejected; see the counts above."
            self._count(journal, categories, verdicts, {})
            raise DatasetError(f"Not one photo for {self.config.name}. {why}")
        self._count(journal, categories, verdicts, assigned)
        kept = [one.row for photos in verdicts.kept.values() for one in photos]
        stored = {row.photo_id: row.file_in(self.downloads) for row in kept}
        assemble(self.folder, self.config, records, stored, self.progress)
        write_text(self.folder / INFO, json.dumps(self._info(categories), indent=1, ensure_ascii=False) + "\n")
        write_manifest(self.folder, records)
        write_card(self.folder)

    def _count(
        self, journal: Journal, categories: Sequence[Category], verdicts: Verdicts, assigned: Mapping[str, str]
    ) -> None:
        """Fill the report, and say what each filter did to each category."""
        wanted = self.config.splits
        for category in categories:
            name = category.name
            splits = dict.fromkeys(SPLITS, 0)
            for one in verdicts.kept[name]:
                if split := assigned.get(one.row.photo_id):
                    splits[split] += 1
            found = sum(journal.counts(name).values())
            rejected = {reason: count for reason, count in verdicts.rejected[name].items() if count}
            missing = wanted.total - sum(splits.values())
            self.report.categories.append(CategoryReport(name, found, rejected, splits, missing))
            out = ", ".join(f"{count} {reason}" for reason, count in rejected.items()) or "none"
            used = ", ".join(f"{count} {split}" for split, count in splits.items())
            self.say(f"{name}: {found} found; left out: {out}; used: {used}")
            if missing:
                why = _why_short(verdicts.kept[name], wanted.total)
                self.report.problems.append(f"{name}: {missing} of {wanted.total} photos are missing ({used}){why}.")

    def _info(self, categories: Sequence[Category]) -> dict[str, Any]:
        """Collect the facts that card and check need; nothing of this machine."""
        config = self.config
        return {
            "format": 1,
            "name": config.name,
            "title": config.title or config.name,
            "description": config.description,
            "seed": config.seed,
            "encoder": config.encoder,
            "rasr": version("rasr"),
            "built": datetime.now(UTC).strftime("%Y-%m-%d"),
            "splits": config.splits.model_dump(),
            "filters": config.filters.model_dump(mode="json"),
            "lq": config.lq.model_dump() if config.lq.enabled else None,
            "gallery": config.gallery,
            "categories": [
                category.model_dump(include={"name", "title", "scientific_name", "why"})
                | {"found": report.found, "rejected": report.rejected}
                for category, report in zip(categories, self.report.categories, strict=True)
            ],
        }


def _why_short(kept: Sequence[Kept], wanted: int) -> str:
    """Explain why splits are short although there were enough good photos."""
    if len(kept) < wanted:
        return ""
    largest = max(Counter(one.group for one in kept).values())
    return (
        f": there are {len(kept)} good ones, but {largest} of them must stay together (one photographer, or nearly the "
        "same picture); add sources, or see by_photographer and related_similarity in [splits]"
    )


def _claim(folder: Path) -> None:
    """Make sure that ``folder`` is new, empty or ours."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; a dataset needs a folder.")
    if folder.exists() and not (folder / BUILD_DIR).is_dir() and any(folder.iterdir()):
        if (folder / MANIFEST).exists():
            raise OutputError(
                f"{folder} holds a finished dataset without its {BUILD_DIR} folder, so it cannot be extended. "
                "Choose another folder."
            )
        raise OutputError(f"{folder} is not empty and not a dataset of RASR. Choose another folder.")
    try:
        (folder / BUILD_DIR).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot create {folder}: {error.strerror or error}.") from error
