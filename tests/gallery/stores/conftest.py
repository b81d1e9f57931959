"""Places for galleries: a folder, a Lance table in a folder, and a bucket of a server on loopback."""

from __future__ import annotations

import pytest

from tests.objects.servers import AZURITE, make_container, s3, s3_server

__all__ = ["s3", "s3_server"]


SERVERS = ["s3", "az"] if AZURITE else ["s3"]


@pytest.fixture(params=["folder", "lance", *SERVERS])
def place(request: pytest.FixtureRequest, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where a gallery may be kept."""
    if request.param == "folder":
        return f"{tmp_path}/gallery"
    pytest.importorskip("lancedb")
    if request.param == "lance":
        return f"lance://{tmp_path}/gallery"
    return f"{bucket(request, monkeypatch)}/galleries/zoo"


@pytest.fixture(params=SERVERS)
def shared(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where several machines may keep a gallery."""
    pytest.importorskip("lancedb")
    return f"{bucket(request, monkeypatch)}/zoo"


def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "az":
        return make_container(AZURITE, monkeypatch)
    return str(request.getfixturevalue("s3"))
