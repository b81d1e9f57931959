"""The evidence map, drawn and told: colours, legend, words in the file and on the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from PIL import ExifTags, Image

from rasr.errors import OutputError, OutputExists
from rasr.gallery import Reference
from rasr.images import Picture
from rasr.registration import Evidence
from rasr.restoration import Job, Result
from rasr.restoration.evidence import COLOURS, STRONGEST, draw, layer, legend, save_evidence
from rasr.restoration.plan import plan_maps
from tests.restoration.conftest import Scene

Run = Callable[..., CompletedProcess[str]]


def made(shares: list[float], *, names: str = "abcdefgh", evidence: bool = True) -> Result:
    """A gray picture of 10 × 20 pixels; each photo's detail fills that share of its columns, from the left on."""
    maps, begin = np.zeros((len(shares), 10, 20), np.uint8), 0
    for number, share in enumerate(shares):
        maps[number, :, begin : begin + round(20 * share)] = 255
        begin += round(20 * share)
    references = [
        Reference(Path(f"/photos/{name}.jpg"), 0.9, rank, verdict="same scene", share=share)
        for rank, (name, share) in enumerate(zip(names, shares, strict=False), 1)
    ]
    references.append(Reference(Path("/photos/other.jpg"), 0.5, 9, accepted=False, verdict="unrelated"))
    picture = Picture(np.full((10, 20, 3), 0.5, np.float32))
    return Result(picture, picture, references, {"seed": 0}, {}, evidence=Evidence(maps) if evidence else None)


def test_the_legend_names_each_photo_and_what_is_drawn() -> None:
    entries = legend(made([0.5, 0.2]))
    assert [(one.colour, one.words, round(one.share, 3)) for one in entries] == [
        ("#e66101", "detail from your photo a.jpg", 0.5),
        ("#5e3c99", "detail from your photo b.jpg", 0.2),
        ("#808080", "drawn: plausible, not evidence", 0.3),
    ]


def test_the_layer_has_a_photos_colour_where_its_detail_is_and_is_clear_elsewhere() -> None:
    drawn = layer(made([0.5, 0.2]))
    assert drawn.shape == (10, 20, 4)
    assert (drawn[:, :10] == (*COLOURS[0], round(255 * STRONGEST))).all()
    assert (drawn[:, 10:14] == (*COLOURS[1], round(255 * STRONGEST))).all()
    assert not drawn[:, 14:, 3].any()


def test_where_two_photos_gave_detail_their_colours_mix_by_share() -> None:
    result = made([0.5, 0.0])
    assert result.evidence is not None
    result.evidence.maps[:, :, :10] = np.array([153, 51], np.uint8)[:, None, None]
    pixel = layer(result)[5, 5].astype(int)
    expected = np.rint(0.75 * np.array(COLOURS[0]) + 0.25 * np.array(COLOURS[1]))
    assert np.abs(pixel[:3] - expected).max() <= 1
    assert pixel[3] == round(204 * STRONGEST)


def test_a_seventh_photo_begins_the_colours_again() -> None:
    assert legend(made([0.1] * 7))[6].colour == legend(made([0.1]))[0].colour


def test_drawn_is_the_picture_in_gray_under_the_layer() -> None:
    result = made([0.5])
    result.picture.pixels[:] = (0.2, 0.4, 0.6)
    drawn = draw(result)
    assert (drawn[:, 10:] == round(0.4 * 255)).all()
    expected = 0.4 * 255 * (1 - STRONGEST) + np.array(COLOURS[0]) * STRONGEST
    assert np.abs(drawn[5, 5] - expected).max() <= 1


def test_without_evidence_there_is_no_legend_and_the_layer_is_clear() -> None:
    result = made([0.0], evidence=False)
    assert legend(result) == []
    assert not layer(result).any()
    assert (draw(result) == 128).all()
    assert result.evidence_references == []


def test_the_map_is_saved_as_a_png_and_never_over_another_file(tmp_path: Path) -> None:
    result = made([0.5])
    with Image.open(save_evidence(result, tmp_path / "map.png")) as image:
        assert image.format == "PNG"
        assert np.array_equal(np.asarray(image), draw(result))
    with pytest.raises(OutputExists):
        save_evidence(result, tmp_path / "map.png")
    save_evidence(result, tmp_path / "map.png", overwrite=True)


def test_the_saved_file_says_where_its_detail_is_from(tmp_path: Path) -> None:
    with Image.open(made([0.5, 0.2]).save(tmp_path / "r.png")) as image:
        told = json.loads(str(image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ImageHistory]))
    assert told["evidence"] == [
        "50% detail from your photo a.jpg",
        "20% detail from your photo b.jpg",
        "drawn: plausible, not evidence",
    ]
    with Image.open(made([0.0], evidence=False).save(tmp_path / "none.png")) as image:
        assert "evidence" not in json.loads(str(image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ImageHistory]))


def test_the_command_line_draws_the_map_and_tells_the_shares(scene: Scene, run_rasr: Run, tmp_path: Path) -> None:
    done = run_rasr(
        "restore", scene.query, "--preset", "bicubic", "--scale", 2, "--reference", scene.same,
        "-o", tmp_path / "r.png", "--evidence", tmp_path / "map.png", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    reference = json.loads(done.stdout)["references"][0]
    assert reference["verdict"] == "same scene"
    assert 0.15 < reference["share"] <= 1
    assert f"{reference['share']:.0%} of the result is detail from it." in done.stderr
    with Image.open(tmp_path / "map.png") as image, Image.open(tmp_path / "r.png") as restored:
        assert image.size == restored.size
        coloured = np.ptp(np.asarray(image.convert("RGB")).astype(int), axis=2) > 20
    assert reference["share"] <= coloured.mean() < 0.9, "coloured where the photo gave some of the detail"


def test_no_map_takes_the_place_of_a_picture_of_the_run(scene: Scene, run_rasr: Run, tmp_path: Path) -> None:
    query = shutil.copy(scene.query, tmp_path / "in.png")
    before = query.read_bytes()
    (tmp_path / "mine.png").write_bytes(b"mine")
    for place, words in (
        (query, "would replace a picture of this run"),
        (tmp_path / "r.png", "would replace a picture of this run"),
        (scene.same, "would replace a picture of this run"),
        (tmp_path / "nowhere" / "map.png", "does not exist"),
        (tmp_path, "this is a folder"),
    ):
        done = run_rasr(
            "restore", query, "--preset", "bicubic", "--reference", scene.same, "-o", tmp_path / "r.png",
            "--overwrite", "--evidence", place,
        )  # fmt: skip
        assert done.returncode != 0
        assert words in done.stderr
        assert not (tmp_path / "r.png").exists(), "said before the work"
    done = run_rasr(
        "restore", query, "--preset", "bicubic", "-o", tmp_path / "r.png", "--evidence", tmp_path / "mine.png"
    )
    assert "exists already" in done.stderr
    assert query.read_bytes() == before
    assert (tmp_path / "mine.png").read_bytes() == b"mine"


def test_maps_of_results_of_one_name_have_names_of_their_own(tmp_path: Path) -> None:
    results = [tmp_path / name for name in ("a/x.png", "b/x.png", "a/x.jpg", "c/x.png")]
    jobs = [Job(tmp_path / f"in{number}.png", result) for number, result in enumerate(results)]
    maps = plan_maps(jobs, tmp_path / "maps", several=True, overwrite=False)
    assert [maps[result].name for result in results] == [
        "x_evidence.png",
        "x.png_evidence.png",
        "x.jpg_evidence.png",
        "x.png_2_evidence.png",
    ]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="need one"):
        plan_maps(jobs, tmp_path / "file", several=True, overwrite=True)


def test_the_maps_of_a_folder_lie_in_a_folder(scene: Scene, run_rasr: Run, tmp_path: Path) -> None:
    inputs = tmp_path / "in"
    inputs.mkdir()
    for name, side in (("one.png", 96), ("two.png", 100)):
        with Image.open(scene.query) as query:
            query.crop((0, 0, side, side)).save(inputs / name)
    done = run_rasr(
        "restore", inputs, "--preset", "bicubic", "--scale", 1, "--reference", scene.other,
        "-o", tmp_path / "out", "--evidence", tmp_path / "maps",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(one.name for one in (tmp_path / "maps").iterdir()) == [
        "one_rasr_evidence.png",
        "two_rasr_evidence.png",
    ]
    with Image.open(tmp_path / "maps" / "two_rasr_evidence.png") as image:
        assert image.size == (100, 100)
        assert np.ptp(np.asarray(image).astype(int), axis=2).max() == 0, "nothing was fused: all gray"
    shutil.rmtree(tmp_path / "maps")
    again = run_rasr(*done.args[3:])
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("No evidence map: ") == 2
