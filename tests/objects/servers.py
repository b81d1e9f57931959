"""Object storage on loopback: moto's server and buckets of it, and containers of Azurite where one runs."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from email.utils import formatdate

import pytest

from tests.objects.proxy import free_port

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "rasr-test",
    "AWS_SECRET_ACCESS_KEY": "not-a-secret-1234",
    "AWS_REGION": "us-east-1",
}


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of moto's S3 server, which honours conditional writes from 5.2.5 on.

    ``RASR_TEST_S3`` names another server that runs, whose buckets anybody may make, to run the same tests with it.
    """
    if given := os.environ.get("RASR_TEST_S3"):
        yield given
        return
    pytest.importorskip("moto", minversion="5.2.5")
    pytest.importorskip("obstore")
    port = free_port()
    log = (tmp_path_factory.mktemp("moto") / "log").open("wb")
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log
    )
    try:
        for _ in range(600):
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/moto-api/data.json")
                connection.getresponse().read()
                break
            except OSError:
                assert server.poll() is None, "moto's server did not start"
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=30)
        log.close()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket, for this process and those that it starts."""
    return make_bucket(s3_server, monkeypatch)


def make_bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Create a bucket and set the environment by which RASR finds it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": server, "AWS_ALLOW_HTTP": "true"}.items():
        monkeypatch.setenv(name, value)
    bucket = f"rasr-{uuid.uuid4().hex[:12]}"
    host = server.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=30)
    connection.request(
        "PUT", f"/{bucket}", headers={"Authorization": "AWS4-HMAC-SHA256 Credential=x/1/us-east-1/s3/aws4_request"}
    )
    answer = connection.getresponse()
    said = answer.read()
    connection.close()
    assert answer.status == 200, said
    return f"s3://{bucket}"


AZURITE = os.environ.get("RASR_TEST_AZ", "")
"""The address of an Azurite that runs (npm's ``azurite-blob``): what honours conditions is then tested with it, too."""
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Of every Azurite; Microsoft publishes it."""


def make_container(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Create a container and set the environment by which RASR finds it."""
    settings = {
        "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY,
        "AZURE_STORAGE_ENDPOINT": f"{server}/{ACCOUNT}",
        "AZURE_ALLOW_HTTP": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    container = f"rasr-{uuid.uuid4().hex[:12]}"
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-12-02"}
    lines = ["PUT", *[""] * 11, *(f"{name}:{value}" for name, value in headers.items())]
    signed = "\n".join([*lines, f"/{ACCOUNT}/{ACCOUNT}/{container}", "restype:container"]).encode()
    signature = base64.b64encode(hmac.digest(base64.b64decode(ACCOUNT_KEY), signed, hashlib.sha256)).decode()
    headers |= {"Authorization": f"SharedKey {ACCOUNT}:{signature}", "Content-Length": "0"}
    connection = http.client.HTTPConnection(server.removeprefix("http://"), timeout=30)
    connection.request("PUT", f"/{ACCOUNT}/{container}?restype=container", headers=headers)
    answer = connection.getresponse()
    said = answer.read()
    connection.close()
    assert answer.status == 201, said
    return f"az://{container}"
