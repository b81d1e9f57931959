"""Places for galleries: a folder, a Lance table in a folder, and a bucket of a server on loopback."""

from __future__ import annotations

import pytest

from tests.objects.servers import s3, s3_server

__all__ = ["s3", "s3_server"]


@pytest.fixture(params=["folder", "lance", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: object) -> str:
    """Where a gallery may be kept."""
    if request.param == "folder":
        return f"{tmp_path}/gallery"
    pytest.importorskip("lancedb")
    return (
        f"lance://{tmp_path}/gallery" if request.param == "lance" else f"{request.getfixturevalue('s3')}/galleries/zoo"
    )
