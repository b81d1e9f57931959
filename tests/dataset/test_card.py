"""The card: a header that the hub reads, text that strangers' titles cannot break, and the facts of the build."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import DatasetCard

from rasr.dataset import Record, write_card
from rasr.dataset.manifest import write_manifest
from rasr.errors import DatasetError
from rasr.images import Picture, write_picture

INFO: dict[str, Any] = {
    "format": 1,
    "name": "owls",
    "title": 'Owls: "by night" # 1',
    "description": "Thirty owls.",
    "seed": 3,
    "encoder": "effnet-lite0",
    "rasr": "0.1.0",
    "built": "2026-11-27",
    "splits": {"by_photographer": True},
    "lq": {"crop": 512, "preset": "light", "scale": 4},
    "gallery": True,
    "categories": [
        {"name": "snow-owl", "title": "Snow_owl", "scientific_name": "Bubo", "why": "white | rare", "found": 9,
         "rejected": {"blurred": 2, "licence": 5}}
    ],
}  # fmt: skip


def _dataset(folder: Path, info: dict[str, Any] | None, **changes: Any) -> str:
    """Write three photos and what is known of them; returns the card."""
    records = []
    for number, split in enumerate(("train", "test", "reference")):
        words = dict.fromkeys(("scientific_name", "source_id", "url", "sha256", "group"), "")
        values: dict[str, Any] = {
            "id": str(number), "category": "snow-owl", "split": split, "file": f"snow-owl/{split}/{number}.png",
            "source": "flickr", "page_url": "https://example.org/1", "title": "A *[title]*", "author": "Ann_Lee",
            "author_id": f"a{number}", "licence": "CC-BY-4.0", "bytes": 1, "width": 40, "height": 30,
            "licence_url": "https://creativecommons.org/licenses/by/4.0/", "phash": "0" * 16,
        }  # fmt: skip
        record = Record(**{**words, **values, **changes})
        (folder / record.file).parent.mkdir(parents=True, exist_ok=True)
        write_picture(Picture(np.full((30, 40, 3), 0.5, np.float32)), folder / record.file)
        records.append(record)
    write_manifest(folder, records)
    if info is not None:
        (folder / "dataset.json").write_text(json.dumps(info), "utf-8")
    return write_card(folder).read_text("utf-8")


def test_the_hub_reads_the_header(tmp_path: Path) -> None:
    header = DatasetCard(_dataset(tmp_path, INFO)).data.to_dict()
    assert header["pretty_name"] == INFO["title"]
    assert header["license"] == "cc-by-4.0"
    assert header["size_categories"] == ["n<1K"]
    assert "super-resolution" in header["tags"]
    mixed = DatasetCard(_dataset(tmp_path / "mixed", INFO, licence="CC-BY-SA-3.0-DE")).data.to_dict()
    assert (mixed["license"], mixed["license_link"]) == ("other", "ATTRIBUTION.md")


def test_the_facts_of_the_build_are_told(tmp_path: Path) -> None:
    card = _dataset(tmp_path, INFO, deviation=5.0)
    for said in (
        "3 photos in 1 categories (1 train, 1 test, 1 reference)",
        "test inputs (centre crops of 512 px, 'light' degradation, ÷4)",
        r"| Snow\_owl (*Bubo*) | 1 | 1 | 1 | white \| rare |",
        "| [CC-BY-4.0](https://creativecommons.org/licenses/by/4.0/) | 3 |",
        "Sources: flickr (3).",
        "from 9 candidates",
        "| licence: licence unknown or not on the list | 5 |",
        "No photographer and no near-duplicate is in two",
        "(3 are marked in the manifest by `deviation`).",
    ):
        assert said in card
    assert "no known author" not in card


def test_a_folder_without_a_build_record_has_a_card_of_what_is_known(tmp_path: Path) -> None:
    card = _dataset(tmp_path, None, author="", page_url='https://x/"><script>')
    assert card.startswith('---\npretty_name: "dataset"\n')
    assert "How it was made" not in card
    assert "3 photos have no known author" in card
    credit = (tmp_path / "ATTRIBUTION.md").read_text("utf-8")
    assert r"A \*\[title\]\* by unknown author, [CC-BY-4.0]" in credit
    assert "script" not in credit


def test_a_damaged_build_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"dataset\.json is not of a format"):
        _dataset(tmp_path, {"format": 2})
