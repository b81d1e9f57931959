"""The public surface: what `import rasr` gives, how fast, and what it does not drag in."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import rasr
from rasr import errors

ROOMS = [
    "rasr",
    *(f"rasr.{name}" for name in ("device", "weights")),
    *(f"rasr.{name}" for name in ("images", "gallery", "gallery.encoders", "generator", "restoration", "degrade")),
    *(f"rasr.{name}" for name in ("training", "evaluation", "evaluation.metrics", "dataset", "service")),
]


@pytest.mark.parametrize("room", ROOMS)
def test_all_names_exactly_what_the_room_offers(room: str) -> None:
    module = importlib.import_module(room)
    for name in module.__all__:
        assert getattr(module, name) is not None
    assert len(set(module.__all__)) == len(module.__all__)
    offered = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not inspect.ismodule(value)
        and f"{getattr(value, '__module__', '')}.".startswith(f"{room}.")
        and (inspect.isclass(value) or inspect.isfunction(value))
    }
    assert offered <= set(module.__all__), "public names missing from __all__"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Galery'"):
        _ = rasr.Galery


def test_importing_rasr_is_light() -> None:
    """No torch, no numpy: counted in modules, since seconds belong to the benchmarks."""
    script = (
        "import sys; before = set(sys.modules); import rasr; new = set(sys.modules) - before;"
        "heavy = {'torch', 'numpy', 'PIL', 'lancedb', 'pyarrow', 'click'};"
        "assert not {m.split('.')[0] for m in new} & heavy, sorted(new);"
        "assert len(new) < 40, sorted(new)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "room",
    [
        "images",
        "weights",
        "gallery",
        "generator",
        "restoration",
        "degrade",
        "training",
        "evaluation",
        "dataset",
        "service",
        "service.server",
        "cli.main",
    ],
)
def test_rooms_import_without_torch_or_network(room: str) -> None:
    script = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise AssertionError('network touched at import')\n"
        "socket.socket.connect = refuse; socket.getaddrinfo = refuse\n"
        f"import rasr.{room}\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_error_is_a_rasr_error_with_a_documented_meaning() -> None:
    for error in filter(inspect.isclass, vars(errors).values()):
        assert issubclass(error, errors.RasrError)
        assert error.__doc__
        assert error.exit_code in {1, 2}


def test_a_missing_extra_names_the_command_that_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told() -> str:
        return str(errors.ExtraMissing("Reading HEIC", "heic"))

    checkout = tmp_path / "my checkout"
    (checkout / "src" / "rasr").mkdir(parents=True)
    (checkout / "pyproject.toml").touch()
    monkeypatch.setattr(errors, "__file__", str(checkout / "src" / "rasr" / "errors.py"))
    monkeypatch.chdir(tmp_path)
    assert told().endswith(f"pip install -e '{checkout}[heic]'")
    monkeypatch.chdir(checkout)
    assert told().endswith("pip install -e '.[heic]'")
    installed = tmp_path / "lib" / "python3.11" / "site-packages" / "rasr"
    installed.mkdir(parents=True)
    monkeypatch.setattr(errors, "__file__", str(installed / "errors.py"))
    assert told().endswith("pip install 'rasr[heic]'")
