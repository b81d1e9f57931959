"""Windows: every pixel is told by some, and what is the same in all of them stays as it is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rasr.registration import windows
from rasr.registration.windows import Window, blend


@settings(max_examples=40, deadline=None)
@given(width=st.integers(1, 260), height=st.integers(1, 260))
def test_what_windows_agree_on_is_the_whole(width: int, height: int) -> None:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    picture = np.stack([x, y, x + y], -1)
    seen: list[Window] = []

    def look(window: Window) -> list[NDArray[np.float32]]:
        left, top, right, bottom = window
        seen.append(window)
        return [x[top:bottom, left:right], picture[top:bottom, left:right]]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "WINDOW", 64)
        patch.setattr(windows, "MARGIN", 16)
        plane, whole = blend((width, height), look)
    assert np.allclose(plane, x, rtol=1e-5, atol=1e-4)
    assert np.allclose(whole, picture, rtol=1e-5, atol=1e-4)
    assert len(seen) == 1 or max(right - left for left, _, right, _ in seen) <= 64


def test_neighbours_fade_into_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "WINDOW", 64)
    monkeypatch.setattr(windows, "MARGIN", 16)
    (steps,) = blend((112, 40), lambda window: [np.full((40, window[2] - window[0]), float(window[0] > 0), np.float32)])
    assert steps[20, 0] == 0
    assert steps[20, -1] == 1
    assert 0 < np.diff(steps[20]).max() < 0.2
