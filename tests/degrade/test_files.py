"""Files: which becomes which, what a manifest says of them, and what is refused before any work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasr.degrade import draw
from rasr.degrade.files import DegradeJob, Entry, Manifest, _output_names, degrade_files, plan_jobs, plan_rebuild
from rasr.errors import ConfigError, UsageError
from rasr.images import Picture, read_picture, write_picture


def _photo(path: Path, side: int = 40) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(side).random((side, side, 3), np.float32)
    return write_picture(Picture(pixels), path)


@pytest.mark.parametrize(
    ("names", "results"),
    [
        (["birds/owl.jpg", "b.tif"], ["birds/owl.png", "b.png"]),
        (["owl.jpg", "owl.png", "b.jpg"], ["owl.jpg.png", "owl.png.png", "b.png"]),
        (["a.jpg", "a.webp", "a.jpg.png"], ["a.jpg.png", "a.webp.png", "a.jpg.png.png"]),
    ],
)
def test_results_are_named_after_their_pictures(names: list[str], results: list[str]) -> None:
    assert _output_names(names) == results


@given(st.lists(st.sampled_from(["a.jpg", "a.png", "a.jpg.png", "a.png.png", "a.jpg.png.jpg", "b/a.jpg"]), unique=True))
def test_no_two_results_ever_meet(names: list[str]) -> None:
    results = _output_names(names)
    assert len(set(results)) == len(names)
    assert all(result.endswith(".png") for result in results)


def test_a_folder_is_planned_without_what_was_made_of_it(tmp_path: Path) -> None:
    for name in ("a.png", "sub/b.png", "lq/a.png", "hr/a.png"):
        _photo(tmp_path / name)
    jobs = plan_jobs(tmp_path, tmp_path / "lq", tmp_path / "hr", preset="light", scale=2, seed=3)
    assert [(job.name, job.output, job.hr_output) for job in jobs] == [
        ("a.png", tmp_path / "lq/a.png", tmp_path / "hr/a.png"),
        ("sub/b.png", tmp_path / "lq/sub/b.png", tmp_path / "hr/sub/b.png"),
    ]
    assert jobs[1].recipe == draw("light", scale=2, seed=3, name="sub/b.png")


def test_a_single_picture_goes_to_its_name_or_into_a_folder(tmp_path: Path) -> None:
    photo = _photo(tmp_path / "a.png")
    (job,) = plan_jobs(photo, tmp_path / "lq.PNG", preset="realesrgan", scale=4, seed=1)
    assert (job.name, job.output, job.hr_output) == ("a.png", tmp_path / "lq.PNG", None)
    (tmp_path / "out").mkdir()
    (job,) = plan_jobs(photo, tmp_path / "out", tmp_path / "hr", preset="realesrgan", scale=4, seed=1)
    assert (job.output, job.hr_output) == (tmp_path / "out/a.png", tmp_path / "hr/a.png")
    with pytest.raises(UsageError, match=r"Name it \.png"):
        plan_jobs(photo, tmp_path / "lq.jpg", preset="realesrgan", scale=4, seed=1)


def test_a_manifest_comes_back_and_rebuilds_or_says_why_not(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        _photo(tmp_path / "photos" / name)
    jobs = plan_jobs(tmp_path / "photos", tmp_path / "lq", preset="realesrgan", scale=4, seed=1)
    entries = [entry for _, entry, problem in degrade_files(jobs) if entry and not problem]
    made = Manifest(seed=1, pictures=tuple(entries))
    made.write(tmp_path / "set.json")
    assert Manifest.read(tmp_path / "set.json") == made
    again = plan_rebuild(made, tmp_path / "photos", tmp_path / "again")
    assert [problem for _, _, problem in degrade_files(again, expected=made)] == [None, None]
    _photo(tmp_path / "new.png", 44).replace(tmp_path / "photos/a.png")
    (tmp_path / "photos/b.png").unlink()
    first, second = degrade_files(again, expected=made, overwrite=True)
    assert first[1] is not None
    assert "differs from the manifest" in str(first[2])
    assert second[1:] == (None, f"{tmp_path / 'photos/b.png'}: no such file.")
    with pytest.raises(UsageError, match=r"does not name c\.png"):
        plan_rebuild(made, _photo(tmp_path / "c.png"), tmp_path / "c-lq.png")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not a degradation manifest"),
        ('{"seed": 1, "pictures": [], "crob": 3}', "unknown key 'crob'. Did you mean 'crop'?"),
        ('{"seed": "x", "pictures": []}', "seed: "),
    ],
)
def test_a_damaged_manifest_is_named_with_its_fault(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "set.json").write_text(text)
    with pytest.raises(ConfigError) as error:
        Manifest.read(tmp_path / "set.json")
    assert said in str(error.value)
    assert "set.json" in str(error.value)
    with pytest.raises(ConfigError, match="Cannot read the degradation manifest"):
        Manifest.read(tmp_path / "gone.json")


def test_names_outside_of_the_folder_are_refused(tmp_path: Path) -> None:
    recipe = draw(seed=0, name="a.png")
    for name, output in (("../a.png", "a.png"), ("a.png", "/tmp/a.png")):
        entry = Entry(name=name, output=output, width=1, height=1, sha256="", recipe=recipe)
        with pytest.raises(UsageError, match="outside the folder"):
            plan_rebuild(Manifest(seed=1, pictures=(entry,)), tmp_path, tmp_path / "lq")


def test_what_exists_is_refused_before_torch_is_loaded(tmp_path: Path) -> None:
    photo, taken = _photo(tmp_path / "a.png"), _photo(tmp_path / "lq.png")
    code = (
        "import sys; from pathlib import Path; from rasr.degrade.files import plan_jobs, degrade_files\n"
        f"jobs = plan_jobs(Path({str(photo)!r}), Path({str(taken)!r}), preset='light', scale=4, seed=1)\n"
        "((_, entry, problem),) = degrade_files(jobs)\n"
        "assert entry is None and 'exists already' in problem, problem\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_original_is_never_replaced(tmp_path: Path) -> None:
    photo = _photo(tmp_path / "a.png")
    before = photo.read_bytes()
    job = DegradeJob("a.png", photo, photo, "a.png", draw(seed=1, name="a.png"))
    ((_, entry, problem),) = degrade_files([job], overwrite=True)
    assert entry is None
    assert "this is the input itself" in str(problem)
    assert photo.read_bytes() == before


@pytest.mark.parametrize("preset", ["light", "realesrgan"])
def test_hidden_colours_never_show(tmp_path: Path, preset: str) -> None:
    """Whatever lies under full transparency, the same files come out: transparent pictures are laid on white."""
    random = np.random.default_rng(0)
    seen = random.random((64, 64, 3), np.float32)
    alpha = np.zeros((64, 64), np.float32)
    alpha[:, :32] = 1
    results = []
    for index in range(2):
        pixels = np.where(alpha[:, :, None] > 0, seen, random.random((64, 64, 3), np.float32))
        (tmp_path / f"{index}").mkdir()
        write_picture(Picture(pixels, alpha), tmp_path / f"{index}" / "a.png")
        (job,) = plan_jobs(
            tmp_path / f"{index}", tmp_path / f"{index}-lq", tmp_path / f"{index}-hr", preset=preset, scale=2, seed=1
        )
        ((_, entry, problem),) = degrade_files([job])
        assert entry is not None
        assert problem is None
        results.append((entry.sha256, (tmp_path / f"{index}-hr/a.png").read_bytes()))
    assert results[0] == results[1]
    high = read_picture(tmp_path / "0-hr/a.png")
    assert high.alpha is None
    np.testing.assert_allclose(high.pixels[:, 32:], 1)
    np.testing.assert_allclose(high.pixels[:, :32], seen[:, :32], atol=0.6 / 255)
