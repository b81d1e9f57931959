from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from subprocess import CompletedProcess

import pytest

from rasr import device
from rasr.cli import doctor
from rasr.device import _surely_without_gpu

Run = Callable[..., CompletedProcess[str]]


def test_it_says_what_runs_where_and_why(run_rasr: Run) -> None:
    done = run_rasr("doctor", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["machine"]["device"].startswith(("cpu, fp32: ", "cuda", "mps"))
    assert facts["encoders"]["effnet-lite0"].startswith("ready, 1280 dimensions")
    for said in ("not here: ", "88 MB, Apache-2.0", "facebook/dinov2-small", "rasr models download dinov2-small"):
        assert said in facts["encoders"]["dinov2-small"]
    assert "does not use the reference" in facts["generators"]["realesrgan"]
    assert facts["rasr"]["network"].startswith("off")


def test_people_get_the_same_facts_as_a_list(run_rasr: Run) -> None:
    done = run_rasr("doctor")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "rasr: what is installed"
    for section in ("machine", "encoders", "generators", "extras"):
        assert f"\n{section}: {doctor.SECTIONS[section]}\n" in done.stdout


def test_every_line_fits_80_columns_and_says_what_it_is_for(run_rasr: Run) -> None:
    facts = json.loads(run_rasr("doctor", "--json").stdout)
    assert facts["machine"]["threads"] == f"{device.choose_threads()}"
    done = run_rasr("doctor")
    assert max(map(len, done.stdout.splitlines())) <= 80
    text = " ".join(done.stdout.split())
    for section, entries in facts.items():
        for name, value in entries.items():
            said = f"({doctor.PURPOSES[name]})" if name in doctor.PURPOSES else value.split()[0]
            assert said in text, (section, name)
    assert "(how many compute at once: --threads N)" in text
    assert doctor.PURPOSES.keys() <= {name for entries in facts.values() for name in entries}, "none is left over"


def test_torch_is_not_loaded_where_there_is_no_gpu(run_rasr: Run) -> None:
    done = run_rasr("doctor", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0, done.stderr
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "numpy" in loaded
    assert "torch" not in loaded or not _surely_without_gpu()


def test_a_broken_torchvision_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> types.ModuleType:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(doctor.importlib, "import_module", refuse)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    facts = doctor._torchvision()
    assert facts.startswith("BROKEN")
    assert "pip uninstall torchvision" in facts
