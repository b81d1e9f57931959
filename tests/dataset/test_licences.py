"""What the sources call licences, and which are accepted."""

from __future__ import annotations

import pytest

from rasr.dataset.licences import FREE_LICENCES, allowed, licence_url, parse_licence


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://creativecommons.org/licenses/by-nc-sa/2.0/", "CC-BY-NC-SA-2.0"),
        ("https://creativecommons.org/licenses/by-sa/3.0/de/deed.en", "CC-BY-SA-3.0-DE"),
        ("https://creativecommons.org/licenses/by/4.0/deed.en", "CC-BY-4.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "CC-PDM-1.0"),
        ("CC BY-SA 3.0 de", "CC-BY-SA-3.0-DE"),
        ("CC BY-SA 3.0 or GFDL", "CC-BY-SA-3.0"),
        ("CC BY-NC-ND 2.0", "CC-BY-NC-ND-2.0"),
        ("Attribution-NonCommercial License 2.0", "CC-BY-NC-2.0"),
        ("Public domain", "LicenseRef-Public-Domain"),
        ("Public Domain Dedication (CC0)", "CC0-1.0"),
        ("United States Government Work", "LicenseRef-US-Government"),
        ("No known copyright restrictions", "LicenseRef-No-Known-Copyright"),
        ("LicenseRef-Own", "LicenseRef-Own"),
        ("All Rights Reserved", None),
        ("GFDL", None),
        ("Fair use", None),
        ("cc-by-nc", None),
        ("", None),
        (None, None),
    ],
)
def test_names_codes_and_urls(text: str | None, expected: str | None) -> None:
    assert parse_licence(text) == expected


def test_codes_without_a_version_take_the_given_one() -> None:
    assert parse_licence("cc-by-nc-sa", version="4.0") == "CC-BY-NC-SA-4.0"


@pytest.mark.parametrize("licence", ["CC-BY-2.0", "CC-BY-SA-3.0-DE", "CC0-1.0", "CC-PDM-1.0"])
def test_free_licences_pass(licence: str) -> None:
    assert allowed(licence, FREE_LICENCES)


@pytest.mark.parametrize("licence", ["CC-BY-NC-2.0", "CC-BY-ND-4.0", "CC-BY-NC-SA-4.0", "LicenseRef-Own", None])
def test_others_do_not(licence: str | None) -> None:
    assert not allowed(licence, FREE_LICENCES)


def test_a_version_on_the_list_admits_that_version_only() -> None:
    assert allowed("CC-BY-4.0", ["CC-BY-4.0"])
    assert not allowed("CC-BY-2.0", ["CC-BY-4.0"])


@pytest.mark.parametrize("licence", ["CC-BY-4.0", "CC-BY-SA-3.0-DE", "CC-BY-NC-ND-2.0", "CC0-1.0", "CC-PDM-1.0"])
def test_urls_lead_back_to_the_licence(licence: str) -> None:
    assert parse_licence(licence_url(licence)) == licence
