"""Alignment and fusion: what is put into a picture, and what the map says of it."""

import cv2
import numpy as np
import pytest

from rasr.images import FloatImage
from rasr.registration import windows
from rasr.registration.alignment import align, fit_affine
from rasr.registration.fusion import Evidence, fuse
from rasr.registration.scene import SceneMatch
from tests.registration.conftest import compare

Stereo = tuple[FloatImage, FloatImage]


def verified(query: FloatImage, photo: FloatImage) -> tuple[FloatImage, SceneMatch]:
    found = compare(query, photo)
    assert found.same_scene
    return photo, found


def detail(pixels: FloatImage) -> FloatImage:
    luma = pixels.mean(2)
    return luma - cv2.GaussianBlur(luma, (0, 0), 3)


def psnr(pixels: FloatImage, truth: FloatImage) -> float:
    return float(-10 * np.log10(((pixels - truth) ** 2).mean()))


def enlarged(truth: FloatImage, times: int) -> FloatImage:
    small = cv2.resize(truth, (320 // times, 320 // times), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (320, 320), interpolation=cv2.INTER_CUBIC).clip(0, 1)


def test_the_detail_of_another_view_is_that_of_the_truth(stereo: Stereo) -> None:
    truth = stereo[0][90:410, 210:530]
    query = enlarged(truth, 4)
    picture = query.copy()
    evidence = fuse(picture, query, [verified(query, stereo[1])])
    inside = evidence.total > 100
    assert inside.mean() > 0.4
    before, after = (np.corrcoef(detail(one)[inside], detail(truth)[inside])[0, 1] for one in (query, picture))
    assert before < 0.66 < 0.78 < after
    assert psnr(picture, truth) > psnr(query, truth) + 1
    assert detail(query)[inside].std() < 0.52 * detail(truth)[inside].std()
    assert detail(picture)[inside].std() > 0.68 * detail(truth)[inside].std()


def test_what_the_picture_itself_shows_is_not_replaced(stereo: Stereo) -> None:
    """Half the size has lost little, and another view lies a fraction of a pixel beside it."""
    truth = stereo[0][90:410, 210:530]
    query = enlarged(truth, 2)
    picture, whole = query.copy(), truth.copy()
    evidence = fuse(picture, query, [verified(query, stereo[1])])
    inside = evidence.total > 20
    before, after = (np.corrcoef(detail(one)[inside], detail(truth)[inside])[0, 1] for one in (query, picture))
    assert after > before
    assert psnr(picture, truth) > psnr(query, truth)
    untouched = fuse(whole, truth, [verified(query, stereo[1])])
    assert untouched.total.mean() < 0.1 * evidence.total.mean()
    assert psnr(whole, truth) > 45


def test_a_photo_in_its_exact_place_is_taken_as_it_is(stereo: Stereo) -> None:
    truth = stereo[0][90:410, 210:530]
    query = enlarged(truth, 4)
    picture = query.copy()
    evidence = fuse(picture, query, [verified(query, np.ascontiguousarray(np.rot90(stereo[0])))])
    assert evidence.total.mean() > 130
    assert psnr(picture, truth) > psnr(query, truth) + 6


def test_outside_the_map_the_picture_keeps_its_bits(stereo: Stereo, query: FloatImage) -> None:
    picture = query.copy()
    evidence = fuse(picture, query, [verified(query, stereo[1])])
    outside = evidence.total == 0
    assert outside.any()
    np.testing.assert_array_equal(picture[outside], query[outside])
    assert (picture[~outside] != query[~outside]).any()


def test_a_photo_of_the_left_half_gives_evidence_in_the_left_half(stereo: Stereo, query: FloatImage) -> None:
    truth = stereo[0][90:410, 210:530]
    photo = np.ascontiguousarray(truth[:, :160])
    evidence = fuse(query.copy(), query, [verified(query, photo)])
    weight = evidence.total.astype(np.float64)
    assert weight.sum() > 0
    assert weight[:, :160].sum() >= 0.99 * weight.sum()


@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_strength_scales_map_and_change(stereo: Stereo, query: FloatImage, strength: float) -> None:
    whole, part = query.copy(), query.copy()
    photos = [verified(query, stereo[1])]
    full = fuse(whole, query, photos).total.astype(int)
    scaled = fuse(part, query, photos, strength=strength).total.astype(int)
    assert np.abs(scaled - strength * full).max() <= 1
    assert np.abs((part - query) - strength * (whole - query)).max() < 0.05


def test_no_photo_no_evidence(query: FloatImage) -> None:
    picture = query.copy()
    evidence = fuse(picture, query, [])
    assert evidence.maps.shape == (0, 320, 320)
    assert evidence.shares == ()
    assert not evidence.total.any()
    np.testing.assert_array_equal(picture, query)


def test_two_photos_share_the_map(stereo: Stereo, query: FloatImage) -> None:
    turned = np.ascontiguousarray(np.rot90(stereo[0]))
    evidence = fuse(query.copy(), query, [verified(query, stereo[1]), verified(query, turned)])
    assert evidence.maps.shape == (2, 320, 320)
    assert min(evidence.shares) > 0.1
    assert evidence.maps.sum(0, dtype=int).max() <= 255 + 1
    assert evidence.total.mean() / 255 == pytest.approx(sum(evidence.shares), abs=0.01)


def test_another_light_is_matched_and_not_taken(stereo: Stereo, query: FloatImage) -> None:
    darker = (stereo[1] * np.array([0.7, 0.55, 0.5], np.float32)) ** 1.2
    picture = query.copy()
    evidence = fuse(picture, query, [verified(query, darker)])
    assert evidence.total.mean() > 60
    assert np.abs(picture.mean((0, 1)) - query.mean((0, 1))).max() < 0.005


def test_a_thing_that_moved_is_left_out(stereo: Stereo, query: FloatImage) -> None:
    photo = stereo[0].copy()
    photo[190:290, 310:410] = (0.9, 0.8, 0.1)  # stands before the middle of the query
    evidence = fuse(query.copy(), query, [verified(query, photo)])
    assert evidence.total[110:190, 110:190].mean() < 0.1 * evidence.total.mean()


@pytest.mark.parametrize("size", [(97, 131), (200, 175), (61, 64)])
def test_any_size_is_aligned(stereo: Stereo, size: tuple[int, int]) -> None:
    width, height = size
    whole = stereo[0][150 : 150 + height, 200 : 200 + width]
    low = cv2.resize(whole, (width // 4, height // 4), interpolation=cv2.INTER_AREA)
    picture = np.clip(cv2.resize(low, size, interpolation=cv2.INTER_CUBIC), 0, 1)
    found = SceneMatch(same_scene=True, matches=99, to_reference=np.array([[1.0, 0, 200], [0, 1.0, 150], [0, 0, 1.0]]))
    evidence = fuse(picture, low, [(stereo[0], found)])
    assert evidence.maps.shape == (1, height, width)
    assert evidence.shares[0] > 0.2


def test_windows_give_what_one_piece_gives(monkeypatch: pytest.MonkeyPatch, stereo: Stereo, query: FloatImage) -> None:
    whole, pieces = query.copy(), query.copy()
    photos = [verified(query, stereo[1])]
    one = fuse(whole, query, photos)
    monkeypatch.setattr(windows, "WINDOW", 200)
    monkeypatch.setattr(windows, "MARGIN", 48)
    several = fuse(pieces, query, photos)
    assert abs(one.shares[0] - several.shares[0]) < 0.1
    assert np.abs(whole - pieces).mean() < 0.01
    outside = several.total == 0
    np.testing.assert_array_equal(pieces[outside], query[outside])


def test_an_affine_motion_is_fitted_whatever_a_tenth_of_the_places_say() -> None:
    y, x = np.mgrid[0:200, 0:240].astype(np.float32)
    true = np.stack([0.02 * x - 0.01 * y + 3, 0.015 * y - 2], -1)
    seen = true.copy()
    seen[80:120, 100:160] += 9
    fitted = fit_affine(seen, np.ones((200, 240), np.float32), 24)
    assert np.abs(fitted - true)[10:-10, 10:-10].mean() < 0.4


def test_alignment_is_to_a_fraction_of_a_pixel(stereo: Stereo, query: FloatImage) -> None:
    """The photo is the same one, bent by a known smooth motion."""
    y, x = np.mgrid[0:500, 0:741].astype(np.float32)
    bend = np.stack([2.5 * np.sin(y / 90), 2.0 * np.cos(x / 110)], -1)
    photo = cv2.remap(stereo[0], x + bend[..., 0], y + bend[..., 1], cv2.INTER_CUBIC).clip(0, 1)
    aligned = align(query, query, *verified(query, photo))
    sure = aligned.confidence > 0.5
    truth = stereo[0][90:410, 210:530]
    assert sure.mean() > 0.5
    assert np.corrcoef(detail(aligned.seen)[sure], detail(truth)[sure])[0, 1] > 0.85


def test_shares_are_of_the_whole_picture() -> None:
    maps = np.zeros((2, 4, 4), np.uint8)
    maps[0, :2] = 255
    assert Evidence(maps).shares == (0.5, 0.0)


def test_a_place_of_the_picture_is_known_in_the_photo(stereo: Stereo, query: FloatImage) -> None:
    turned = np.ascontiguousarray(np.rot90(stereo[0]))  # the picture itself, so that every place is known
    evidence = fuse(query.copy(), query, [verified(query, turned)])
    assert evidence.places.shape == (1, 20, 20, 2)
    middles = 16 * np.arange(20) + 8
    sure = evidence.maps[0][np.ix_(middles, middles)] > 100
    true = np.stack(np.broadcast_arrays((90 + middles[:, None]) / 500, 1 - (210 + middles) / 741), -1)
    apart = np.abs(evidence.places[0] - true)[sure] * (500, 741)
    assert sure.mean() > 0.5
    assert apart.mean() < 1
    between = evidence.find(np.array([8, 16, 24]), np.array([8]))[0, 0]
    np.testing.assert_allclose(between[1], (between[0] + between[2]) / 2, atol=1e-6)
    np.testing.assert_array_equal(evidence.find(middles, middles), evidence.places)


def test_windows_know_the_places_that_one_piece_knows(
    monkeypatch: pytest.MonkeyPatch, stereo: Stereo, query: FloatImage
) -> None:
    photos = [verified(query, stereo[1])]
    one = fuse(query.copy(), query, photos)
    monkeypatch.setattr(windows, "WINDOW", 200)
    monkeypatch.setattr(windows, "MARGIN", 48)
    several = fuse(query.copy(), query, photos)
    apart = np.abs(one.places - several.places)[0] * (741, 500)
    assert np.median(apart) < 2
