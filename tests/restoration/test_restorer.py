"""From a picture to a Result: references, sizes, alpha, gray, notes, and the promises about strength and no match."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import rasr
import rasr.restoration.restorer as module
from rasr.errors import OutOfMemory, PictureError, PictureTooLarge, UsageError
from rasr.gallery import Reference
from rasr.gallery.search import CleanQuery
from rasr.images import FloatImage, Limits, Origin, Picture, resize
from rasr.restoration import Restorer, Settings, TargetSize, restore
from tests.restoration.conftest import Local

Make = Callable[..., Any]


class Encoder:
    name = "stand-in"
    fingerprint = "stand-in/1"
    input_size = 32


class Gallery:
    """Answers every query with the same photos."""

    path = Path("/gallery")
    address = "/gallery"
    encoder = Encoder()
    calibration = ""

    def __init__(self, *photos: tuple[Path, float]) -> None:
        self.photos = photos
        self.queries: list[Picture] = []
        self.excluded: list[Path] = []

    def __len__(self) -> int:
        return len(self.photos)

    def prepare(self, queries: list[Picture], *, clean: CleanQuery, guard: bool) -> list[str]:
        self.queries += [query.with_pixels(clean(query.pixels, self.encoder.input_size)) for query in queries]
        return ["prepared"]

    def scores(self, query: str) -> NDArray[np.float32]:
        assert query == "prepared", "the query is embedded once"
        return np.array([score for _, score in self.photos], np.float32)

    def search(self, query: str, k: int, *, exclude: list[Path]) -> list[Reference]:
        assert query == "prepared"
        self.excluded = exclude
        return [Reference(path, score, rank) for rank, (path, score) in enumerate(self.photos[:k], 1)]


@pytest.fixture
def lq(photo: FloatImage) -> FloatImage:
    return np.clip(resize(photo, (45, 30)), 0, 1)


@pytest.fixture
def red(tmp_path: Path) -> Path:
    path = tmp_path / "red.png"
    Image.new("RGB", (20, 20), (200, 40, 40)).save(path)
    return path


def test_one_line_and_reusable_object_give_the_same(lq: FloatImage) -> None:
    one = restore(Picture(lq), preset="bicubic", size=TargetSize(width=90))
    two = Restorer("bicubic")(Picture(lq), size=TargetSize(width=90))
    assert np.array_equal(one.picture.pixels, two.picture.pixels)
    assert one.picture.pixels.shape == (60, 90, 3)
    assert np.abs(one.picture.pixels - np.clip(resize(lq, (90, 60)), 0, 1)).max() < 1e-5
    assert rasr.Restorer is Restorer
    three = rasr.restore(Picture(lq), preset="bicubic", size=TargetSize(width=90))
    assert np.array_equal(one.picture.pixels, three.picture.pixels)


@pytest.mark.parametrize("grid", ["input", "output"])
@pytest.mark.parametrize(
    "size",
    [
        TargetSize(),
        TargetSize(scale=1.3),
        TargetSize(scale=0.4),
        TargetSize(width=7),
        TargetSize(height=123),
        TargetSize(long_side=1),
    ],
)
def test_any_size_is_met_on_either_grid(local: Make, lq: FloatImage, grid: str, size: TargetSize) -> None:
    generator = local(scale=4 if grid == "input" else 1, grid=grid)
    result = Restorer(generator)(Picture(lq), size=size)
    assert (result.picture.width, result.picture.height) == size.of(45, 30)
    assert (result.settings["width"], result.settings["height"]) == size.of(45, 30)
    assert 0 <= result.picture.pixels.min() <= result.picture.pixels.max() <= 1


def test_a_result_smaller_than_the_input_is_not_made_from_sixteen_times_the_work(
    local: Make, photo: FloatImage
) -> None:
    generator = local(scale=4, grid="input")
    Restorer(generator)(Picture(photo), size=TargetSize(width=50))
    assert len(generator.shapes) == 1


def test_no_accepted_reference_equals_no_reference_bit_for_bit(local: Make, lq: FloatImage, red: Path) -> None:
    plain = Restorer(local(uses_reference=True))(Picture(lq), reference="none")
    turned_down = Restorer(local(uses_reference=True), Gallery((red, 0.01)))(Picture(lq))
    weak = Restorer(local(uses_reference=True), Gallery((red, 0.95)))(Picture(lq), strength=0)
    guided = Restorer(local(uses_reference=True), Gallery((red, 0.95)))(Picture(lq), colour="none")
    assert np.array_equal(plain.picture.pixels, turned_down.picture.pixels)
    assert np.array_equal(plain.picture.pixels, weak.picture.pixels)
    assert not np.array_equal(plain.picture.pixels, guided.picture.pixels)
    assert [reference.accepted for reference in turned_down.references] == [False]
    assert turned_down.references[0].why.startswith("Turned down")
    assert any("No suitable reference" in note for note in turned_down.notes)
    assert any("Strength 0" in note for note in weak.notes)
    assert guided.notes == ()


def test_only_accepted_references_reach_the_generator_best_first(local: Make, lq: FloatImage, tmp_path: Path) -> None:
    paths = []
    for level in range(4):
        paths.append(tmp_path / f"{level}.png")
        Image.new("L", (8, 8), 50 * level).save(paths[-1])
    gallery = Gallery(*zip(paths, (0.97, 0.96, 0.95, 0.1), strict=True))
    generator = local(uses_reference=True)
    result = Restorer(generator, gallery)(Picture(lq, path=tmp_path / "query.png"), k=2)
    assert [reference.path for reference in generator.references] == paths[:2]
    assert [reference.score for reference in generator.references] == [0.97, 0.96]
    assert [reference.accepted for reference in result.references] == [True, True, False, False]
    assert gallery.excluded == [tmp_path / "query.png"], "the query itself is never its own reference"


def test_a_generator_without_reference_branch_says_so_and_reads_none(local: Make, lq: FloatImage, red: Path) -> None:
    generator = local()
    result = Restorer(generator, Gallery((red, 0.95)))(Picture(lq))
    assert generator.references == []
    assert "No photo of the same scene: restored without a reference." in result.notes
    unlooked = Restorer(generator, Gallery((red, 0.95)))(Picture(lq), candidates=0)
    assert "local does not use references; they are shown for you." in unlooked.notes
    assert len(result.references) == 1


def test_photos_picked_by_hand_need_no_gallery_and_pass_no_test(local: Make, lq: FloatImage, red: Path) -> None:
    generator = local(uses_reference=True)
    result = Restorer(generator)(Picture(lq), reference=[red, str(red)])
    assert [reference.score for reference in generator.references] == [1.0, 1.0]
    told = "Picked by hand. Not verified: no places found again. The generator saw it: changed because of it."
    assert [reference.why for reference in result.references] == [told] * 2
    assert len(Restorer(generator)(Picture(lq), reference=str(red)).references) == 1


def test_a_picked_file_that_is_no_picture_is_an_error_even_if_it_would_not_be_used(
    local: Make, lq: FloatImage, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    for generator in (local(), local(uses_reference=True)):
        with pytest.raises(PictureError, match=r"notes\.txt"):
            Restorer(generator)(Picture(lq), reference=tmp_path / "notes.txt")


def test_without_a_gallery_there_is_a_note_and_without_wish_for_one_there_is_none(local: Make, lq: FloatImage) -> None:
    assert Restorer(local(uses_reference=True))(Picture(lq)).notes == (
        "No gallery was given: restored without a reference.",
    )
    assert Restorer(local(uses_reference=True))(Picture(lq), reference="none").notes == ()
    assert Restorer(local())(Picture(lq)).notes == ("No gallery was given: restored without a reference.",)
    assert Restorer(local())(Picture(lq), candidates=0).notes == (), "nothing would look at one"


def test_the_query_is_cleaned_as_asked(local: Make, lq: FloatImage, red: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = Gallery((red, 0.5))
    restorer = Restorer(local(), gallery)
    monkeypatch.setattr("rasr.generator.presets._query_cleaner", lambda: local(scale=4, grid="input"))
    for mode in ("off", "on", "auto"):
        restorer(Picture(lq), query_restore=mode)
    off, on, auto = gallery.queries
    assert off.pixels is lq
    assert on.pixels.shape == (32, 48, 3), "as large as what the encoder sees"
    assert auto.pixels.shape == (32, 48, 3), "30 pixels are fewer than the encoder's 32"
    restorer(Picture(np.ascontiguousarray(np.tile(lq, (2, 2, 1)))), query_restore="auto")
    assert gallery.queries[-1].pixels.shape == (60, 90, 3), "large enough"


def test_a_cleaner_runs_first_over_the_whole_picture(local: Make, lq: FloatImage) -> None:
    cleaner = local(scale=4, grid="input")
    generator = local(cleaner=cleaner)
    heard: list[tuple[str, float, float]] = []
    twice = Settings(colour="none", size=TargetSize(scale=2))
    result = Restorer(generator)(Picture(lq), twice, progress=lambda *what: heard.append(what))
    expected = np.clip(resize(lq.repeat(4, 0).repeat(4, 1), (90, 60)), 0, 1)
    assert np.abs(result.picture.pixels - expected).max() < 1e-5
    assert all(base is not None for base in generator.bases)
    assert heard == sorted(heard), "clean, then restore"
    assert [what for what in heard if what[1] == what[2]] == [("clean", 1.0, 1.0)] * 2 + [("restore", 1.0, 1.0)] * 2
    assert "clean" in result.timings
    assert result.settings["cleaner"]["name"] == "local"


def test_a_picture_is_cleaned_once_for_each_size_while_it_fits(
    local: Make, lq: FloatImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleaner = local(scale=4, grid="input")
    generator = local(cleaner=cleaner)
    restorer = Restorer(generator)
    first = restorer(Picture(lq))
    assert "clean_saved" not in first.timings
    again = restorer(Picture(lq.copy()), strength=0.5)
    assert len(cleaner.shapes) == 1
    assert again.timings["clean_saved"] > 0
    assert np.array_equal(first.picture.pixels, again.picture.pixels)
    restorer(Picture(lq), size=TargetSize(scale=2))
    restorer(Picture(1 - lq))
    assert len(cleaner.shapes) == 3
    assert all(base is not None and not base.flags.writeable for base in generator.bases[:1])
    small = Restorer(local(cleaner=cleaner), cleaned_bytes=10)
    small(Picture(lq))
    assert "clean_saved" not in small(Picture(lq)).timings
    assert len(cleaner.shapes) == 5


def test_hidden_colours_do_not_leak_and_alpha_is_resized(local: Make) -> None:
    pixels = np.zeros((40, 40, 3), np.float32)
    pixels[:, :20] = [0.2, 0.6, 0.9]
    alpha = np.zeros((40, 40), np.float32)
    alpha[:, :20] = 1
    result = Restorer(local(scale=4, grid="input", reach=3))(Picture(pixels, alpha))
    assert result.picture.alpha is not None
    assert result.picture.alpha.shape == (160, 160)
    visible = result.picture.alpha > 0.02
    assert np.abs(result.picture.pixels[visible] - np.float32([0.2, 0.6, 0.9])).max() < 0.01


def test_gray_stays_gray_and_origin_and_notes_travel(local: Make) -> None:
    class Tinting:
        info, cleaner = local().info, None

        def prepare(self, *_: Any) -> None:
            return None

        def generate(self, tiles: FloatImage, *_: Any) -> FloatImage:
            return np.clip(tiles * np.float32([1.2, 1.0, 0.8]), 0, 1)

    gray = np.random.default_rng(0).random((12, 9, 1), np.float32).repeat(3, 2)
    origin = Origin(format="TIFF", bits=16, gray=True)
    result = Restorer(Tinting())(Picture(gray, origin=origin, notes=("first of 3 pages",)), colour="none")
    assert np.ptp(result.picture.pixels, axis=2).max() == 0
    assert result.picture.origin == origin
    assert "first of 3 pages" in result.notes


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (2, 1)])
def test_tiny_pictures(local: Make, size: tuple[int, int]) -> None:
    pixels = np.full((size[1], size[0], 3), 0.25, np.float32)
    result = Restorer(local(scale=4, grid="input", minimum=32))(Picture(pixels))
    assert result.picture.pixels.shape == (size[1] * 4, size[0] * 4, 3)
    assert result.picture.pixels == pytest.approx(0.25, abs=1e-6)


def test_a_result_that_cannot_fit_into_memory_is_refused_before_the_work(
    local: Make, lq: FloatImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "free_memory", lambda: 2**30)
    generator = local()
    with pytest.raises(OutOfMemory, match=r"45000×30000 pixels needs about 30\.2 GiB of memory and 1\.0 GiB are free"):
        Restorer(generator)(Picture(lq), size=TargetSize(scale=1000))
    assert generator.shapes == []


def test_smaller_tiles_after_running_out_of_memory_are_told(local: Make, lq: FloatImage) -> None:
    generator = local(fail=lambda call, _: MemoryError() if call == 0 else None)
    result = Restorer(generator)(Picture(lq))
    # Tiles are as small as their number allows, less than 64, and the half of what did not fit is taken.
    assert result.settings["tile"] == 28
    largest = [max(shape[1:3]) for shape in generator.shapes]
    assert largest[0] // 2 == 28
    assert max(largest[1:]) in {27, 28}, "as small as their number allows again"
    assert any("Memory ran out with tiles of 64 pixels: finished with 28." in note for note in result.notes)


def test_untrained_weights_are_never_passed_over_in_silence(local: Make, lq: FloatImage) -> None:
    from dataclasses import replace

    generator = local()
    generator.info = replace(generator.info, trained=False, name="mini (untrained)")
    assert any("untrained" in note for note in Restorer(generator)(Picture(lq)).notes)


def test_settings_do_not_depend_on_what_was_loaded_before(lq: FloatImage, monkeypatch: pytest.MonkeyPatch) -> None:
    import ncnn  # noqa: F401

    first = Restorer("bicubic")(Picture(lq)).settings
    for name in ("ncnn", "diffusers"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert Restorer("bicubic")(Picture(lq)).settings == first
    assert {"ncnn", "torch"} <= set(first["versions"])


def test_settings_name_everything_that_determines_the_result(lq: FloatImage) -> None:
    settings = Restorer("bicubic")(Picture(lq), seed=5).settings
    assert settings["preset"] == "bicubic"
    assert settings["seed"] == 5
    assert settings["generator"]["uses_reference"] is False
    assert {"python", "rasr", "numpy", "pillow"} <= set(settings["versions"])
    assert {"size", "tile", "colour", "strength", "k", "query_restore", "device", "encoder"} <= set(settings)


def test_the_same_call_gives_the_same_bytes(lq: FloatImage) -> None:
    restorer = Restorer("realesrgan", device="cpu")
    small = Picture(np.ascontiguousarray(lq[:12, :16]))
    first, second = restorer(small), restorer(small)
    assert first.picture.pixels.tobytes() == second.picture.pixels.tobytes()


def test_unknown_presets_and_options_are_usage_errors(lq: FloatImage) -> None:
    with pytest.raises(UsageError, match="Unknown preset"):
        Restorer("nope")
    with pytest.raises(UsageError, match="too small"):
        Restorer("bicubic")(Picture(lq), tile=3)


def test_a_picture_is_cleaned_once_for_each_size(local: Make, lq: FloatImage) -> None:
    cleaner = local()
    generator = local(cleaner=cleaner)
    restorer = Restorer(generator)
    first, again = restorer(Picture(lq)), restorer(Picture(lq), seed=3)
    assert "clean_saved" not in first.timings
    assert again.timings["clean_saved"] > 0
    assert len(cleaner.shapes) == len(generator.shapes) / 2
    assert np.array_equal(first.picture.pixels, again.picture.pixels)
    kept = restorer._clean(cleaner, lq, (180, 120), Settings(), {}, None)
    assert kept is not None
    assert not kept.flags.writeable, "nobody may change it"
    for other in (restorer(Picture(lq), size=TargetSize(scale=2)), restorer(Picture(lq[::-1].copy()))):
        assert "clean_saved" not in other.timings


def test_the_semantic_context_is_the_whole_pictures_embedding(
    local: Make, lq: FloatImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Shapes:
        """Embeds a picture as its mean."""

        def preprocess(self, pixels: FloatImage) -> FloatImage:
            return pixels.mean(axis=(0, 1))

        def embed(self, batch: FloatImage) -> FloatImage:
            return batch

    loaded: list[str] = []
    monkeypatch.setattr(module, "load_encoder", lambda name: loaded.append(name) or Shapes())
    generator = local()
    plain = Restorer(generator)
    plain(Picture(lq))
    assert generator.settings.embedding is None
    generator.info = replace(generator.info, context_encoder="means")
    restorer = Restorer(generator)
    for _ in range(2):
        restorer(Picture(lq))
        np.testing.assert_array_equal(generator.settings.embedding, lq.mean(axis=(0, 1)))
    assert loaded == ["means"], "loaded once, and only when asked for"


def test_the_limit_counts_the_references_with_the_input(local: Make, lq: FloatImage, red: Path) -> None:
    """1350 pixels of input and 400 of each reference."""
    for picked, limit, fits in ((1, 1750, True), (1, 1749, False), (2, 2150, True), (2, 2149, False)):
        restorer = Restorer(local(uses_reference=True))
        call = partial(restorer, Picture(lq), reference=[red] * picked, limits=Limits(limit))
        if fits:
            assert len(call().references) == picked
        else:
            with pytest.raises(PictureTooLarge, match=r"red\.png: not read, it has 20×20 pixels .* needed with it"):
                call()


@pytest.mark.parametrize("where", ["match_colour", "resize_alpha", "bleed_colour"])
def test_running_out_of_memory_anywhere_is_an_error_of_the_tree(
    local: Make, lq: FloatImage, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(module, where, full)
    with pytest.raises(OutOfMemory, match=r"Not enough memory to restore the picture\. Ask for a smaller --scale"):
        Restorer(local())(Picture(lq, np.ones(lq.shape[:2], np.float32)), colour="wavelet")


def test_what_transparency_hides_in_a_reference_is_not_shown_to_the_generator(
    local: Make, lq: FloatImage, tmp_path: Path
) -> None:
    Image.new("RGBA", (20, 20), (200, 40, 40, 0)).save(tmp_path / "hidden.png")
    generator = local(uses_reference=True)
    Restorer(generator)(Picture(lq), reference=[tmp_path / "hidden.png"])
    assert (generator.references[0].pixels == 1).all()


def test_detail_is_refused_where_there_is_no_dial_and_reaches_the_network_where_there_is(
    local: Make, lq: FloatImage
) -> None:
    for preset in ("bicubic", "realesrgan"):
        with pytest.raises(UsageError, match="no dial for detail"):
            Restorer(preset, device="cpu")(Picture(lq), detail=0.8)
    generator = local(cleaner=local(scale=4, grid="input"))
    generator.cleaner.info = replace(generator.cleaner.info, has_detail=True)
    restorer = Restorer(generator)
    assert restorer(Picture(lq), detail=0.8).settings["detail"] == 0.8
    assert generator.cleaner.settings.detail == 0.8
    assert "clean_saved" not in restorer(Picture(lq)).timings, "cleaned with another detail"
    assert Restorer("mini").generator.info.has_detail


def test_a_flat_thin_picture_stays_flat_where_the_dial_is_crispest() -> None:
    """Framed by what tiles share, 16 pixels, it was 4.6 levels off: the crispest weights feel black from afar."""
    flat = np.broadcast_to(np.float32((0.8, 0.3, 0.2)), (1, 24, 3)).copy()
    restored = Restorer("mini", device="cpu", threads=1)(Picture(flat), detail=1.0).picture.pixels
    assert np.abs(restored - flat[0, 0]).max() * 255 < 2


def test_a_thin_picture_is_framed_by_its_mirror_image_and_no_other_is() -> None:
    class Dark(Local):
        """Takes what lies beyond its tile for black, as a network does."""

        def generate(self, tiles: Any, base: Any, conditioning: Any) -> Any:
            padded = np.pad(tiles, ((0, 0), (1, 1), (1, 1), (0, 0)))
            near = sum(padded[:, 1 + y : padded.shape[1] - 1 + y, 1:-1] for y in (-1, 0, 1)) / 3
            padded = np.pad(near, ((0, 0), (0, 0), (1, 1), (0, 0)))
            near = sum(padded[:, :, 1 + x : padded.shape[2] - 1 + x] for x in (-1, 0, 1)) / 3
            return super().generate(near.astype(np.float32), base, conditioning)

    for height, width in ((1, 200), (200, 1), (3, 90), (1, 1)):
        flat = np.full((height, width, 3), 0.5, np.float32)
        result = Restorer(Dark(scale=4, grid="input"))(Picture(flat), colour="none")
        assert np.abs(result.picture.pixels - 0.5).max() < 1e-5
    usual = np.full((64, 70, 3), 0.5, np.float32)
    result = Restorer(Dark(scale=4, grid="input"))(Picture(usual), colour="none")
    assert np.abs(result.picture.pixels - 0.5).max() > 0.1, "as it was: its border is the network's"
