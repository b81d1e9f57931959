"""Methods by name: generator presets, official code, model files and finished folders.

A method is the name of a preset; ``PRESET:no-reference`` is that preset without its reference branch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rasr.errors import RasrError, UsageError, install_command
from rasr.evaluation.method import Method, MethodInfo
from rasr.evaluation.methods.command import CommandMethod
from rasr.evaluation.methods.profile import Profile
from rasr.evaluation.methods.restorers import OutputsMethod, RestorerMethod
from rasr.generator import DEFAULT_PRESET, PRESETS

if TYPE_CHECKING:
    from rasr.restoration import ColourMethod

__all__ = ["ALIASES", "MethodOptions", "list_methods", "load_method"]

ALIASES = {
    "rasrnet-mini": "mini",
    "rasrnet-sd21": "sd21",
    "osediff": "sd21-osediff:no-reference",
    "pisasr": "sd21-pisasr:no-reference",
}
"""Earlier names, understood for one more version; a row keeps the name it was asked for by."""

_BARE = ":no-reference"


@dataclass(frozen=True, slots=True)
class _Preset:
    """Description of a preset in the table, and the colour match of its results."""

    family: str
    summary: str
    colour: ColourMethod | Literal["auto"] = "none"
    remark: str = ""


_PRESETS: Mapping[str, _Preset] = {
    "bicubic": _Preset("Interpolation", "bicubic interpolation, the floor"),
    "realesrgan": _Preset("GAN-based", "Real-ESRGAN x4plus, packaged weights"),
    "mini": _Preset("RASR", "retrieval-augmented, the model that ships", "auto"),
    "mini:no-reference": _Preset("RASR", "the model that ships, no reference looked at", "auto"),
    "sd21": _Preset("RASR", "retrieval-augmented on SD 2.1, the paper's system", "auto"),
    "sd21-osediff:no-reference": _Preset(
        "Diffusion-based",
        "one step on SD 2.1-base, OSEDiff's weights; one prompt for all, where OSEDiff has tags by DAPE",
        "adain",
        "without its prompts",
    ),
    "sd21-pisasr:no-reference": _Preset("Diffusion-based", "one step on SD 2.1-base, PiSA-SR's weights", "adain"),
}
"""What the paper's table says of methods; a preset that is not here is RASR's and says about itself what it is."""


@dataclass(frozen=True, slots=True)
class MethodOptions:
    """Options of all methods of a run."""

    device: str = "auto"
    seed: int = 0
    checkouts: Mapping[str, Path] = field(default_factory=dict)
    """Profile name → folder of the official code."""
    profiles: Path | None = None
    """Folder with more profiles, or changed ones."""
    time_limit: float | None = None
    """Seconds a command may take for one picture; None takes the profile's own."""


def load_method(spec: str, options: MethodOptions | None = None) -> Method:
    """Build the method called ``spec``.

    ``PRESET``, ``PRESET:no-reference``, the name of a profile, ``spandrel:FILE`` or ``outputs:FOLDER``. ``NAME=`` in
    front of any of them but a profile sets the row's name. Raises UsageError for anything else.
    """
    options = options or MethodOptions()
    label, _, rest = spec.partition("=") if "=" in spec.partition(":")[0] else ("", "", spec)
    kind, colon, place = rest.partition(":")
    if colon and kind == "outputs":
        return OutputsMethod(label or Path(place).name, Path(place))
    if colon and kind == "spandrel":
        return _spandrel(label or Path(place).stem, Path(place), options)
    name = ALIASES.get(rest, rest)
    if name.removesuffix(_BARE) in PRESETS:
        return _preset(label or rest, name, options)
    profiles = Profile.names(options.profiles)
    if rest in profiles:
        return CommandMethod(Profile.read(rest, options.profiles), options.checkouts.get(rest), options.time_limit)
    known = ", ".join([*dict.fromkeys([*_PRESETS, *PRESETS]), *profiles])
    raise UsageError(f"Unknown method '{spec}'. Choose from: {known}; or spandrel:FILE, or outputs:FOLDER.")


def list_methods(options: MethodOptions | None = None) -> list[MethodInfo]:
    """Describe all methods with their state; those that cannot run say what they need."""
    options = options or MethodOptions()
    infos = [_stated(name, options) for name in dict.fromkeys([*_PRESETS, *PRESETS])]
    infos += [load_method(name, options).info for name in Profile.names(options.profiles)]
    spandrel = MethodInfo(
        "spandrel:FILE",
        "Regression",
        "any model file spandrel knows: BSRGAN, Real-ESRGAN, HAT, SwinIR, DAT, …",
        uses_reference=False,
    )
    try:
        import spandrel as _  # noqa: F401
    except (ImportError, RuntimeError):  # a torchvision that does not fit torch raises RuntimeError
        spandrel = replace(spandrel, state="needs package", todo=install_command("spandrel"))
    outputs = MethodInfo("outputs:FOLDER", "Other", "finished pictures of any method", uses_reference=False)
    return [*infos, spandrel, outputs]


def _stated(name: str, options: MethodOptions) -> MethodInfo:
    """A preset's facts with what it lacks here, found without loading anything."""
    from rasr.generator.config import preset_at_hand
    from rasr.weights import require, serving

    method = _preset(name, name, options)
    preset = name.removesuffix(_BARE)
    try:
        info = method.info
        for weights in serving(preset_at_hand() if preset == "sd21" else preset):
            require(weights.name)
    except RasrError as error:
        told: dict[str, Any] = {"state": "needs weights", "todo": str(error), "remark": method.remark}
        return MethodInfo(name, method.family, method.summary, method.reference, **told)
    return info


def _preset(label: str, name: str, options: MethodOptions) -> RestorerMethod:
    """Build a preset's method; the default, and one with an adapter, have a row for every reference policy."""
    from rasr.restoration import Restorer

    preset, bare = name.removesuffix(_BARE), name.endswith(_BARE)
    adapts = "adapter" in PRESETS[preset].options
    referencing = adapts or preset == DEFAULT_PRESET
    if bare and not referencing:
        raise UsageError(f"'{preset}' uses no reference anyway: leave '{_BARE}' out.")
    known = _PRESETS.get(name) or _Preset("RASR", PRESETS[preset].summary, "auto" if referencing else "none")
    without: dict[str, Any] = {"adapter": "none"} if bare and adapts else {}
    return RestorerMethod(
        label,
        known.family,
        known.summary,
        lambda: Restorer(preset, device=options.device, **without),
        colour=known.colour,
        reference=referencing and not bare,
        fuses=not bare,
        seed=options.seed,
        remark=known.remark,
    )


def _spandrel(label: str, path: Path, options: MethodOptions) -> RestorerMethod:
    from rasr.generator.model_file import ModelFile
    from rasr.restoration import Restorer

    if not path.is_file():
        raise UsageError(f"There is no model file {path}.")

    return RestorerMethod(
        label,
        "",
        f"{path.name}, through spandrel",
        lambda: Restorer(ModelFile(path, device=options.device)),
        seed=options.seed,
    )
