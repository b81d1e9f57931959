from __future__ import annotations

from pathlib import Path

import pytest

from tests.training import standin


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five photos of 140 pixels."""
    return standin.make_photos(tmp_path_factory.mktemp("photos"))
