"""Results: saved with their settings inside, and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

import rasr
from rasr.errors import OutputExists
from rasr.gallery import Reference
from rasr.images import Origin, Picture
from rasr.restoration import Restorer, Result, TargetSize

SOFTWARE, EXIF_IFD, GPS_IFD, HISTORY = 0x0131, 0x8769, 0x8825, 0x9213


@pytest.fixture
def result(tmp_path: Path) -> Result:
    picture = Picture(np.random.default_rng(0).random((6, 8, 3), np.float32), path=tmp_path / "secret/in.png")
    made = Restorer("bicubic")(picture, size=TargetSize(scale=2), seed=3)
    made.references = [Reference(tmp_path / "secret/zebra.jpg", 0.7512345678, 1, "mammal", ("t",), True, "Accepted.")]
    return made


def test_the_file_says_how_it_was_made_but_not_where(result: Result, tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.webp", "a.tif"):
        path = result.save(tmp_path / name)
        assert result.output == path
        with Image.open(path) as image:
            exif = image.getexif()
            history = exif.get(HISTORY) or exif.get_ifd(EXIF_IFD).get(HISTORY)
        assert exif[SOFTWARE] == f"RASR {rasr.__version__}"
        facts = json.loads(history.decode() if isinstance(history, bytes) else history)
        assert facts["preset"] == "bicubic"
        assert facts["seed"] == 3
        assert facts["references"] == ["zebra.jpg"]
        assert b"secret" not in path.read_bytes()


def test_no_folder_of_this_machine_travels_in_a_result(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths wherever they stand: weights, gallery, home, references, what a preset of one's own calls itself."""
    home = tmp_path / "home/jane-doe"
    (home / "models").mkdir(parents=True)
    (home / "models/own.safetensors").write_bytes(b"x")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    own = f"{home}/models/own.safetensors"
    result.settings |= {
        "gallery": f"{home}/Photos",
        "reference": [f"{home}/zebra.jpg"],
        "generator": {"name": "own", "weights": f"{own} + models/own.safetensors + ~/models/own.safetensors"},
        "cleaner": {"weights": "stabilityai/stable-diffusion-2-1-base + realesrgan/tuned by us"},
        "encoder": own,
    }
    for name in ("a.png", "a.jpg", "a.webp", "a.tif"):
        content = result.save(tmp_path / name).read_bytes()
        for word in (b"jane-doe", b"home/", b"Photos", b"models/", bytes(tmp_path)):
            assert word not in content, (name, word)
    with Image.open(tmp_path / "a.png") as image:
        facts = json.loads(image.getexif().get_ifd(EXIF_IFD).get(HISTORY) or image.getexif()[HISTORY])
    assert facts["generator"]["weights"] == " + ".join(["own.safetensors"] * 3)
    assert facts["cleaner"]["weights"] == "stabilityai/stable-diffusion-2-1-base + realesrgan/tuned by us"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("metadata", ["keep", "strip"])
def test_the_place_where_a_photo_was_taken_is_kept_or_stripped_as_asked(
    tmp_path: Path, suffix: str, metadata: Literal["keep", "strip"]
) -> None:
    exif = Image.Exif()
    exif[GPS_IFD] = {2: (52.0, 31.0, 12.0)}
    Image.new("RGB", (8, 6)).save(tmp_path / "in.jpg", exif=exif)
    made = Restorer("bicubic")(tmp_path / "in.jpg", size=TargetSize(scale=1))
    saved = made.save(tmp_path / f"out{suffix}", metadata=metadata)
    with Image.open(saved) as image:
        place = image.getexif().get_ifd(GPS_IFD).get(2)
    assert (place is not None) == (metadata == "keep")
    assert place is None or tuple(map(float, place)) == (52.0, 31.0, 12.0)


def test_stripped_files_say_nothing(result: Result, tmp_path: Path) -> None:
    path = result.save(tmp_path / "a.png", metadata="strip")
    with Image.open(path) as image:
        assert not dict(image.getexif())
    assert b"RASR" not in path.read_bytes()


def test_nothing_is_overwritten_unless_asked(result: Result, tmp_path: Path) -> None:
    result.save(tmp_path / "a.png")
    with pytest.raises(OutputExists):
        result.save(tmp_path / "a.png")
    assert result.save(tmp_path / "a.png", overwrite=True).is_file()


def test_json_holds_what_the_contract_names(result: Result, tmp_path: Path) -> None:
    assert result.to_json()["output"] is None
    result.save(tmp_path / "a.png")
    plain = json.loads(json.dumps(result.to_json()))
    assert {"input", "output", "references", "settings", "timings", "error"} <= set(plain)
    assert plain["output"] == str(tmp_path / "a.png")
    assert plain["error"] is None
    (reference,) = plain["references"]
    assert reference["path"].endswith("zebra.jpg")
    assert reference["score"] == pytest.approx(0.751235)
    assert reference["rank"] == 1
    assert reference["category"] == "mammal"
    assert {"read", "search", "restore", "colour", "save"} <= set(plain["timings"])


def test_what_the_format_cannot_hold_is_said_once(tmp_path: Path) -> None:
    alpha = np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8)
    picture = Picture(np.full((6, 8, 3), 0.5, np.float32), alpha, Origin(bits=16))
    made = Restorer("bicubic")(picture, size=TargetSize(scale=1), reference="none")
    made.save(tmp_path / "whole.png")
    assert made.notes == ()
    made.save(tmp_path / "a.jpg")
    made.save(tmp_path / "b.jpg")
    assert [note.split(":")[0] for note in made.notes] == ["JPEG has no transparency", "JPEG has 8 bits per channel"]
