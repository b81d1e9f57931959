"""Every method by name: what RASR runs itself, what a checkout of official code runs, and finished folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rasr.errors import RasrError, UsageError
from rasr.evaluation.method import Method, MethodInfo
from rasr.evaluation.methods.command import CommandMethod
from rasr.evaluation.methods.outputs import OutputsMethod
from rasr.evaluation.methods.profile import profile_names, read_profile
from rasr.evaluation.methods.restorers import RestorerMethod

if TYPE_CHECKING:
    from rasr.restoration import ColourMethod

__all__ = ["BUILT_IN", "BuiltIn", "MethodOptions", "list_methods", "load_method"]


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A preset of the generator room as a row of the table."""

    family: str
    summary: str
    preset: str
    colour: ColourMethod | Literal["auto"] = "none"
    reference: bool = False
    """Whether this row is about references; it then has one row a policy even while no adapter is at hand."""
    options: Mapping[str, Any] = field(default_factory=dict)


_BARE = {"adapter": "none"}

BUILT_IN: Mapping[str, BuiltIn] = {
    "bicubic": BuiltIn("Interpolation", "bicubic interpolation, the floor", "bicubic"),
    "realesrgan": BuiltIn("GAN-based", "Real-ESRGAN x4plus, packaged weights", "realesrgan"),
    "realesrgan-tuned": BuiltIn("RASR", "Real-ESRGAN tuned further, what mini starts from", "realesrgan-tuned"),
    "rasrnet-mini": BuiltIn("RASR", "retrieval-augmented, the model that ships", "mini", "auto", reference=True),
    "rasrnet-sd21": BuiltIn(
        "RASR", "retrieval-augmented on SD 2.1, the paper's system", "sd21", "auto", reference=True
    ),
    "osediff": BuiltIn(
        "Diffusion-based", "one step on SD 2.1-base, OSEDiff's weights", "sd21-osediff", "adain", options=_BARE
    ),
    "pisasr": BuiltIn(
        "Diffusion-based", "one step on SD 2.1-base, PiSA-SR's weights", "sd21-pisasr", "adain", options=_BARE
    ),
}


@dataclass(frozen=True, slots=True)
class MethodOptions:
    """What applies to all methods of a run."""

    device: str = "auto"
    seed: int = 0
    checkouts: Mapping[str, Path] = field(default_factory=dict)
    """Profile name → folder of the official code."""
    profiles: Path | None = None
    """Folder with more profiles, or changed ones."""
    time_limit: float | None = None
    """Seconds a command may take for one picture; None takes the profile's own."""


def load_method(spec: str, options: MethodOptions | None = None) -> Method:
    """The method called ``spec``.

    A name of :data:`BUILT_IN` or of a profile; ``spandrel:FILE``; ``outputs:FOLDER``; the last two also as
    ``NAME=spandrel:FILE``, which sets the row's name. Raises UsageError for anything else.
    """
    options = options or MethodOptions()
    label, _, rest = spec.partition("=") if "=" in spec.partition(":")[0] else ("", "", spec)
    kind, colon, place = rest.partition(":")
    if colon and kind == "outputs":
        return OutputsMethod(label or Path(place).name, Path(place))
    if colon and kind == "spandrel":
        return _spandrel(label or Path(place).stem, Path(place), options)
    if rest in BUILT_IN:
        return _built_in(label or rest, BUILT_IN[rest], options)
    if rest in profile_names(options.profiles):
        return CommandMethod(read_profile(rest, options.profiles), options.checkouts.get(rest), options.time_limit)
    known = ", ".join([*BUILT_IN, *profile_names(options.profiles)])
    raise UsageError(f"Unknown method '{spec}'. Choose from: {known}; or spandrel:FILE, or outputs:FOLDER.")


def list_methods(options: MethodOptions | None = None) -> list[MethodInfo]:
    """All methods with their state; those that cannot run say what they need."""
    options = options or MethodOptions()
    infos = [_stated(name, built_in, options) for name, built_in in BUILT_IN.items()]
    infos += [load_method(name, options).info for name in profile_names(options.profiles)]
    state_of_spandrel = _has_spandrel()
    infos.append(
        MethodInfo(
            "spandrel:FILE",
            "Regression",
            "any model file spandrel knows: BSRGAN, Real-ESRGAN, HAT, SwinIR, DAT, …",
            uses_reference=False,
            state="ready" if state_of_spandrel else "needs package",
            todo="" if state_of_spandrel else "pip install 'rasr[spandrel]'",
        )
    )
    infos.append(MethodInfo("outputs:FOLDER", "Other", "finished pictures of any method", uses_reference=False))
    return infos


def _stated(name: str, built_in: BuiltIn, options: MethodOptions) -> MethodInfo:
    """A built-in method's facts with what it lacks here, found without loading anything."""
    try:
        info = load_method(name, options).info
        _require_files(built_in.preset)
    except RasrError as error:
        return MethodInfo(
            name, built_in.family, built_in.summary, built_in.reference, state="needs weights", todo=str(error)
        )
    return info


def _require_files(preset: str) -> None:
    """Raise WeightsMissing unless what the preset cannot do without is on this machine."""
    from rasr.generator.config import preset_at_hand
    from rasr.weights import require, serving

    for weights in serving(preset_at_hand() if preset == "sd21" else preset):
        require(weights.name)


def _built_in(name: str, built_in: BuiltIn, options: MethodOptions) -> Method:
    from rasr.restoration import Restorer

    return RestorerMethod(
        name,
        built_in.family,
        built_in.summary,
        lambda: Restorer(built_in.preset, device=options.device, **built_in.options),
        colour=built_in.colour,
        reference=built_in.reference,
        seed=options.seed,
    )


def _spandrel(name: str, path: Path, options: MethodOptions) -> Method:
    from rasr.evaluation.methods.spandrel import SpandrelGenerator
    from rasr.restoration import Restorer

    return RestorerMethod(
        name,
        "Regression",
        f"{path.name}, through spandrel",
        lambda: Restorer(SpandrelGenerator(path, device=options.device)),
        seed=options.seed,
    )


def _has_spandrel() -> bool:
    try:
        import spandrel  # noqa: F401
    except (ImportError, RuntimeError):
        return False
    return True
