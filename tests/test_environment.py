"""docs/environment.md names every variable that the code reads or sets, and no other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "environment.md").read_text("utf-8")
OTHERS = {"NO_COLOR", "COLUMNS", "_RASR_COMPLETE", "HF_HOME", "HF_HUB_CACHE"}
"""Read by packages on RASR's behalf: rich, click, huggingface_hub. Tests of the console try the first and the third."""
OTHERS |= {f"AWS_{name}" for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "REGION", "ENDPOINT_URL")}
OTHERS |= {"AWS_ALLOW_HTTP", "AWS_SKIP_SIGNATURE", "GOOGLE_SERVICE_ACCOUNT"}
OTHERS |= {f"AZURE_STORAGE_{name}" for name in ("ACCOUNT_NAME", "ACCOUNT_KEY", "SAS_TOKEN")}


def named() -> set[str]:
    """Variables in the first column of the page's tables."""
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([A-Z_0-9]+)`", row)}


def used() -> set[str]:
    """Variables in the code: looked up in the environment, given to what looks them up, or in the weights' table."""
    found: set[str] = set()
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text("utf-8")
        lines = [
            line
            for line in text.splitlines()
            if re.search("environ|getenv|NUM_THREADS", line) and "_variable(" not in line
        ]
        found |= {name for line in lines for name in re.findall(r"[\"'{]([A-Z][A-Z0-9_]{3,})[\"'}]", line)}
        found |= set(re.findall(r"environ\.get\(f?[\"']([A-Z_0-9]+)", text))
        found |= set(re.findall(r"key_variable[^\n]*?[\"']([A-Z_0-9]+)[\"']", text))
        found |= set(re.findall(r"[\"'](RASR_[A-Z0-9_]+|HF_HUB_OFFLINE)[\"']", text))
        if "self._variable(" in text:
            found |= {f"RASR_{kind}_NAME" for kind in re.findall(r"self\._variable\(\"([A-Z]+)\"\)", text)}
    catalogue = (ROOT / "src/rasr/weights/catalogue.toml").read_text("utf-8")
    return (found - {"PASSIVE"}) | set(re.findall(r"^variable = \"([A-Z0-9_]+)\"", catalogue, re.MULTILINE))


def test_the_page_names_what_the_code_uses_and_nothing_else() -> None:
    assert used() - named() == set(), "used and not on the page"
    assert named() - used() - OTHERS == set(), "on the page and not used"
    assert named() >= OTHERS


def test_the_code_is_searched_well() -> None:
    assert {"RASR_HOME", "OMP_WAIT_POLICY", "MKL_NUM_THREADS", "RASR_OSEDIFF", "FLICKR_API_KEY", "TERM"} <= used()
    assert {"RASR_CHECKOUT_NAME", "RASR_PYTHON_NAME", "RASR_CONTACT", "XDG_CACHE_HOME", "RANK"} <= used()
