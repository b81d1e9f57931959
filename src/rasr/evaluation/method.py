"""Method: anything that turns low-quality picture files into restored ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from rasr.errors import PictureError, RasrError
from rasr.gallery import Reference
from rasr.images import Picture, read_picture, write_picture

State = Literal["ready", "needs weights", "needs checkout", "needs package"]

FAMILIES = ("Interpolation", "GAN-based", "Regression", "Reference-based", "Diffusion-based", "RASR", "Other")
"""Groups of rows, as in the paper's Table I."""


@dataclass(frozen=True, slots=True)
class MethodInfo:
    """Description of a method."""

    name: str
    family: str
    summary: str
    uses_reference: bool
    fuses: bool = False
    """True when it puts detail of photos of the same scene into its results, though its network may use no reference.
    It then has a row a policy in the layout ``pairs``."""
    needs_reference: bool = False
    """True when it cannot run without one; it then has no row for the policy ``none``."""
    state: State = "ready"
    todo: str = ""
    """One sentence on what to do when the state is not ready."""
    licence: str = ""
    remark: str = ""
    """Reason why this is not yet the method its name promises ("untrained", "no reference adapter"); shown beside the
    name wherever it appears, and such rows are never ranked."""
    whole: bool = False
    """True when it must be given all pictures at once even when only some are missing."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Everything that determines the result besides the input; finished pictures are kept as long as it is the same."""

    @property
    def label(self) -> str:
        """Name in tables."""
        return f"{self.name} ({self.remark})" if self.remark else self.name


@dataclass(frozen=True, slots=True)
class EvalOutcome:
    """Result of a job."""

    name: str
    seconds: float = 0.0
    memory: int = 0
    """Peak resident bytes while it ran (plus peak GPU bytes, where there is one); 0 when not measured."""
    error: str = ""
    references: tuple[Reference, ...] = ()
    """Those of the job with the method's verdict on each and its share of the result; empty where it gives none."""


@dataclass(frozen=True, slots=True)
class EvalJob:
    """One picture to restore."""

    name: str
    low: Path
    output: Path
    """PNG to write."""
    width: int
    height: int
    """Size the output must have."""
    scale: int
    references: tuple[Reference, ...] = ()

    def collect(
        self, source: Path | None, seconds: float = 0.0, memory: int = 0, canvas: tuple[int, int] | None = None
    ) -> EvalOutcome:
        """Copy a picture made elsewhere to the job's output, as 8-bit PNG.

        A picture of the size ``canvas`` (width, height) is cropped to the job's size, from the upper left.
        """
        error = ""
        try:
            if source is None:
                error = "no output picture was written"
            else:
                picture = read_picture(source)
                if (picture.width, picture.height) == canvas != (self.width, self.height):
                    picture = Picture(picture.pixels[: self.height, : self.width])
                write_picture(picture, self.output, bits=8, metadata="strip", overwrite=True)
        except PictureError as unreadable:
            error = f"its output cannot be read: {unreadable}"
        except RasrError as unwritable:
            error = str(unwritable)
        return EvalOutcome(self.name, seconds, memory, error)


class Method(Protocol):
    """A way to restore pictures."""

    @property
    def name(self) -> str:
        """Name of its rows."""
        ...

    @property
    def info(self) -> MethodInfo:
        """Description of this method, and of its state here.

        Raises WeightsError or ExtraMissing where it stands in a file that cannot be read.
        """
        ...

    def run(self, jobs: Sequence[EvalJob], folder: Path) -> Iterator[EvalOutcome]:
        """Restore all jobs in any order, yielding each as it ends; ``folder`` is for working files.

        A job that fails is yielded with its error. Raises RasrError when nothing can be run at all.
        """
        ...
