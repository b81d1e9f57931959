"""The wheel, built from the source distribution: all files of the package and the page, and a service that shows it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGE = Path("src/rasr/service/page")
SHIPPED = [one for one in json.loads((ROOT / PAGE / "third_party.json").read_text("utf-8")) if not one.get("tests")]
pytest.importorskip("setuptools", minversion="77")
pytestmark = [pytest.mark.large, pytest.mark.timeout(1200)]


def run(*words: object, cwd: Path) -> str:
    """Run without this tree on the path, and without a registry."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "npm_", "PIP_"))}
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, capture_output=True, text=True, check=False,
        env=kept | {"PIP_NO_INDEX": "1", "npm_config_registry": "http://127.0.0.1:9/"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of both distributions: the wheel is made of what is in the other."""
    if not (ROOT / PAGE / "third_party").is_dir():
        pytest.skip("the page's third-party files are not placed: make page")
    folder = tmp_path_factory.mktemp("built")
    tree, out = folder / "tree", folder / "out"
    for name in subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines():
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    shutil.copytree(ROOT / PAGE / "third_party", tree / PAGE / "third_party")
    script = f"from setuptools import build_meta; build_meta.build_sdist({str(out)!r})"
    run(sys.executable, "-c", script, cwd=tree)
    (source,) = out.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    script = f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})"
    run(sys.executable, "-c", script, cwd=unpacked)
    return out


def test_the_wheel_holds_the_package_and_the_page(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    tracked = subprocess.run(
        ["git", "ls-files", "src/rasr"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        for entry in SHIPPED:
            content = archive.read(f"rasr/service/page/third_party/{entry['file']}")
            assert hashlib.sha256(content).hexdigest() == entry["sha256"], entry["file"]
    wanted = {name.removeprefix("src/") for name in tracked if name and (ROOT / name).is_file()}
    assert wanted - held == set()
    others = {name for name in held if not name.startswith("rasr/") and ".dist-info/" not in name}
    assert others == set()
    assert {Path(name).name for name in held if "/licenses/" in name} == {"LICENSE", "NOTICE"}


@pytest.fixture
def served(built: Path, tmp_path: Path) -> Iterator[httpx2.Client]:
    """The wheel's service in an environment that holds nothing but the wheel; what it needs is found beside it."""
    (wheel,) = built.glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", "alone", cwd=tmp_path)
    python = tmp_path / "alone" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", wheel, cwd=tmp_path)
    where = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip()
    needed = Path(httpx2.__file__).parents[1]  # as a path only: no editable install of this tree is followed from it
    (Path(where) / "needed.pth").write_text(f"{needed}\n")
    assert run(python, "-c", "import rasr; print(rasr.__file__)", cwd=tmp_path).startswith(where)
    with subprocess.Popen(
        [python.with_name("rasr"), "serve", "--port", "0", "--data", "data", "--preset", "bicubic"],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        with httpx2.Client(base_url=process.stdout.readline().strip(), timeout=60) as client:
            yield client
        process.terminate()
        assert process.wait(60) == 0


def test_the_wheels_service_shows_the_page_and_restores(served: httpx2.Client) -> None:
    page = served.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert 'type="module"' in page.text
    for entry in SHIPPED:
        answer = served.get(f"/static/third_party/{entry['file']}")
        assert hashlib.sha256(answer.content).hexdigest() == entry["sha256"], entry["file"]
    stream = io.BytesIO()
    Image.new("RGB", (16, 12), (200, 100, 50)).save(stream, "PNG")
    job = served.post("/jobs", files={"file": ("a.png", stream.getvalue())}, data={"scale": "2"}).json()
    deadline = time.monotonic() + 120
    while served.get(f"/jobs/{job['id']}").json()["state"] != "done":
        assert time.monotonic() < deadline, served.get(f"/jobs/{job['id']}").text
        time.sleep(0.1)
    assert Image.open(io.BytesIO(served.get(f"/jobs/{job['id']}/result").content)).size == (32, 24)
