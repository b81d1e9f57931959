"""The journal: what survives, what is forgotten, and how little memory it takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rasr.dataset import Candidate
from rasr.dataset.journal import Journal, Measures
from rasr.dataset.sources.source import _safe_name
from rasr.errors import DatasetError, OutputError

MEASURES = Measures("ab" * 32, 1000, ".jpg", 640, 480, 90, 1.0, 0.2, "00ff00ff00ff00ff")


def _candidates(first: int, last: int) -> list[Candidate]:
    return [Candidate("flickr", str(number), f"https://x/{number}.jpg") for number in range(first, last)]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.sqlite")


def test_lists_go_on_where_they_stopped(journal: Journal, tmp_path: Path) -> None:
    assert journal.position("owl", "flickr", "text owl") == ("", 0)
    assert journal.add_page("owl", "flickr", "text owl", 0, _candidates(0, 10), "2") == 10
    assert journal.add_page("owl", "flickr", "text owl", 0, _candidates(5, 12), None) == 2
    journal.close()
    again = Journal(tmp_path / "journal.sqlite")
    assert again.position("owl", "flickr", "text owl") == (None, 12)
    assert [row.candidate.source_id for row in again.rows()] == [str(number) for number in range(12)]
    again.close()


def test_a_changed_question_forgets_what_was_only_listed(journal: Journal) -> None:
    journal.add_page("owl", "flickr", "text owl", 0, _candidates(0, 4), None)
    journal.set_measures(2, MEASURES, b"")
    assert journal.position("owl", "flickr", "text snowy owl") == ("", 0)
    assert [row.seq for row in journal.rows()] == [2]
    journal.close()


def test_credits_are_brought_up_to_date(journal: Journal) -> None:
    journal.add_page("owl", "flickr", "q", 0, _candidates(0, 2), None)
    journal.set_measures(1, MEASURES, b"")
    changed = Candidate("flickr", "0", "https://x/0.jpg", licence="CC0-1.0", author="Ann")
    assert journal.add_page("owl", "flickr", "q2", 0, [changed], None) == 0
    (row,) = journal.rows(state="measured")
    assert (row.candidate.licence, row.candidate.author, row.measures) == ("CC0-1.0", "Ann", MEASURES)
    assert journal.add_page("other", "flickr", "q", 0, _candidates(0, 1), None) == 0
    (row,) = journal.rows(state="measured")
    assert row.candidate.licence == "CC0-1.0"
    journal.close()


def test_a_photo_belongs_to_the_first_category_that_found_it(journal: Journal) -> None:
    journal.add_page("owl", "flickr", "q", 0, _candidates(0, 4), None)
    assert journal.add_page("bird", "flickr", "q", 0, _candidates(2, 6), None) == 2
    assert journal.counts("bird") == {"listed": 2}
    journal.close()


def test_preferred_sources_come_first_and_rows_may_change_while_reading(journal: Journal) -> None:
    journal.add_page("owl", "commons", "q", 1, [Candidate("commons", str(n), "u") for n in range(300)], None)
    journal.add_page("owl", "flickr", "q", 0, _candidates(0, 300), None)
    seen = []
    for row in journal.rows(state="listed", category="owl"):
        seen.append(row.candidate.source)
        journal.set_state([row.seq], "chosen")
    assert seen == ["flickr"] * 300 + ["commons"] * 300
    assert journal.count("chosen") == 600
    journal.close()


def test_passing_failures_are_tried_again_only_after_a_finished_build(journal: Journal) -> None:
    journal.add_page("owl", "flickr", "q", 0, _candidates(0, 3), None)
    journal.set_state([1], "failed", "server trouble")
    journal.set_state([2], "failed", "dead link")
    journal.begin(["server trouble"], "effnet-lite0")
    assert journal.count("failed") == 2
    journal.finish()
    journal.begin(["server trouble"], "effnet-lite0")
    assert journal.counts("owl") == {"dead link": 1, "listed": 2}
    journal.close()


def test_another_encoder_measures_again(journal: Journal) -> None:
    journal.begin([], "effnet-lite0")
    journal.add_page("owl", "flickr", "q", 0, _candidates(0, 3), None)
    for seq in (1, 2):
        journal.set_measures(seq, MEASURES, b"")
    journal.begin([], "effnet-lite0")
    assert journal.counts("owl") == {"listed": 1, "measured": 2}
    journal.begin([], "dinov2-small")
    assert journal.counts("owl") == {"listed": 1, "stored": 2}
    journal.close()


def test_a_transaction_is_all_or_nothing(journal: Journal) -> None:
    journal.add_page("owl", "flickr", "q", 0, _candidates(0, 3), None)

    def interrupted() -> None:
        with journal.transaction():
            journal.set_state([1, 2], "chosen")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert journal.count("chosen") == 0
    journal.close()


def test_a_file_that_is_no_journal_is_named(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(DatasetError, match=r"journal\.sqlite"):
        Journal(tmp_path / "journal.sqlite")


def test_ten_thousand_candidates_take_no_more_memory_than_a_thousand(tmp_path: Path) -> None:
    """Listing, choosing and judging 10 000 against 1 000: the peak may grow by a few MB of SQLite's own cache."""
    code = """
import resource, sys
from pathlib import Path
from rasr.dataset import Candidate, Page
from rasr.dataset.config import parse_config
from rasr.dataset.gather import choose, list_candidates
from rasr.dataset.journal import Journal
from rasr.dataset.verdict import judge
total = int(sys.argv[2])
class Source:
    kind, limit = "flickr", total
    def ready(self): pass
    def query(self, category): return "owls"
    def page(self, category, cursor):
        start = int(cursor or 0)
        found = [Candidate("flickr", str(n), "https://x/" + "y" * 100, "https://p/" + "z" * 100, "title " * 10,
                 f"user {n}", f"id {n}", "CC-BY-4.0" if n % 2 else None, 4000, 3000)
                 for n in range(start, start + 250)]
        return Page(found, str(start + 250) if start + 250 < total else None)
raw = {"name": "x", "source": [{"kind": "flickr"}], "category": [{"name": "owl"}]}
config = parse_config(raw, "t", Path())
journal = Journal(Path(sys.argv[1]))
list_candidates(journal, [Source()], config.category, [], lambda *_: None)
verdicts = judge(journal, config, ["owl"], ())
assert verdicts.rejected["owl"]["licence"] == total // 2
assert choose(journal, config, verdicts.kept, {"owl": 145}) > 145
assert sum(1 for _ in journal.rows()) == total
journal.close()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    peaks = []
    for total in (1000, 10_000):
        words = [sys.executable, "-c", code, str(tmp_path / f"{total}.sqlite"), str(total)]
        peaks.append(int(subprocess.run(words, capture_output=True, text=True, check=True).stdout))
    assert peaks[1] - peaks[0] < 12_000  # KiB; the records themselves would be over 20 MB as objects


@pytest.mark.parametrize(
    ("one", "other"), [("a b", "a-b"), ("x/1.jpg", "y/1.jpg"), ("Owl", "owl"), ("1.jpg", "1.png"), ("ü", "-")]
)
def test_different_ids_have_different_file_names(one: str, other: str) -> None:
    assert _safe_name(one) != _safe_name(other)
    assert "/" not in _safe_name(one) + _safe_name(other)
    assert len(_safe_name("x" * 500)) < 100


def test_a_full_disk_is_one_sentence(journal: Journal) -> None:
    """SQLite's own way to run full: a cap on the file's pages."""
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count={pages + 2}")
    with pytest.raises(OutputError, match="is full"):
        journal.add_page("owl", "flickr", "q", 0, _candidates(0, 5000), None)
    assert journal.counts("owl") == {}
    journal.add_page("owl", "flickr", "q", 0, _candidates(0, 5), None)
    assert journal.counts("owl") == {"listed": 5}
    with pytest.raises(OutputError, match="is full"):
        journal.set_state([1], "failed", "x" * 100_000)
    journal.close()
