"""Shards: each picture belongs to exactly one, by its name alone, and all of them together make one run."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rasr.errors import UsageError
from rasr.restoration import BatchOptions, Restorer, Settings, Shard, TargetSize, plan_jobs, run_batch
from rasr.restoration.plan import Job, of_shard

NAMES = st.lists(st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=20), max_size=40)


@given(names=NAMES, count=st.integers(1, 9))
def test_the_parts_together_are_the_whole_and_share_nothing(names: list[str], count: int) -> None:
    top = Path("in")
    jobs = [Job(top / f"sub/x{name}", Path(f"out/{number}"), folder=top) for number, name in enumerate(names)]
    parts = [of_shard(jobs, Shard(index, count)) for index in range(1, count + 1)]
    assert sorted(job.output for part in parts for job in part) == sorted(job.output for job in jobs)
    assert of_shard(jobs, None) == jobs


@given(names=NAMES, count=st.integers(2, 9))
def test_a_part_depends_on_the_path_below_the_folder_alone(names: list[str], count: int) -> None:
    """Two machines see the same folder in different places, and accents composed in different ways."""
    for name in names:
        here = Job(Path("/mnt/a/in") / f"x{name}", Path("a"), folder=Path("/mnt/a/in"))
        there = Job(Path("in") / f"x{unicodedata.normalize('NFD', name)}", Path("b"), folder=Path("in"))
        shards = [Shard(index, count) for index in range(1, count + 1)]
        assert [one.holds(here.name) for one in shards] == [one.holds(there.name) for one in shards]


def test_names_are_spread_evenly() -> None:
    sizes = [sum(Shard(index, 4).holds(f"scan_{number:05}.tif") for number in range(8000)) for index in range(1, 5)]
    assert sum(sizes) == 8000
    assert all(abs(size - 2000) < 150 for size in sizes), sizes  # four standard deviations


def test_a_name_of_any_bytes_belongs_to_a_part() -> None:
    assert sum(Shard(index, 3).holds("\udcff\udc80.jpg") for index in (1, 2, 3)) == 1


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("0/3", "numbered from 1 to 3"),
        ("4/3", "numbered from 1 to 3"),
        ("1/0", "write it as I/N"),
        ("/", "write it as I/N"),
        ("2", "write it as I/N"),
        ("1/2/3", "write it as I/N"),
        ("-1/3", "write it as I/N"),
        ("1.0/3", "write it as I/N"),
        ("٢/٤", "write it as I/N"),
        ("", "write it as I/N"),
    ],
)
def test_what_is_no_part_is_refused_in_words(given: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        BatchOptions(shard=given)  # type: ignore[arg-type]  # as on the command line


def test_two_parts_make_one_run_as_sets(tmp_path: Path) -> None:
    (tmp_path / "in/sub").mkdir(parents=True)
    for number in range(12):
        Image.new("RGB", (6, 5), (20 * number, 0, 0)).save(tmp_path / f"in/{'sub/' * (number % 2)}{number}.png")
    (tmp_path / "in/broken.png").write_bytes(b"none")
    settings = Settings(size=TargetSize(scale=2))

    def run(out: str, shard: Shard | None) -> tuple[set[str], set[str]]:
        jobs = plan_jobs([tmp_path / "in"], tmp_path / out)
        options = BatchOptions(shard=shard)
        outcomes = list(run_batch(jobs, Restorer("bicubic"), settings, options=options, journal_folder=tmp_path / out))
        done = {str(one.job.output.relative_to(tmp_path / out)) for one in outcomes if one.error is None}
        return done, {one.job.input.name for one in outcomes if one.error is not None}

    whole = run("whole", None)
    first, second = run("parts", Shard(1, 2)), run("parts", Shard(2, 2))
    assert whole == (first[0] | second[0], first[1] | second[1])
    assert not first[0] & second[0]
    assert not first[1] & second[1]
    assert first[0], "a part of twelve pictures is hardly empty"
    assert second[0]
    for name in whole[0]:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
