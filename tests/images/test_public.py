"""What the room exports."""

import importlib
import subprocess
import sys

import rasr.images


def test_all_is_sorted_and_importable() -> None:
    assert rasr.images.__all__ == sorted(
        rasr.images.__all__, key=lambda name: (not name.isupper(), name[0].islower(), name)
    )
    for name in rasr.images.__all__:
        assert getattr(importlib.import_module("rasr.images"), name) is not None


def test_importing_the_room_loads_nothing_heavy() -> None:
    code = "import sys, rasr.images; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & {"torch", "scipy", "skimage", "tifffile", "imagecodecs", "pillow_heif", "lancedb"}
