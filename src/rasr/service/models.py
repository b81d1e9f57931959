"""Models of what is answered: the shapes that the OpenAPI description shows, each with an example."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

PICTURES = "image/jpeg, image/png, image/webp, image/tiff, image/heic"


def pictures(*fields: str) -> dict[str, Any]:
    """The description of a form's fields that take pictures; what they are is told by their content."""
    encoding = {name: {"contentType": PICTURES} for name in fields}
    return {"requestBody": {"content": {"multipart/form-data": {"encoding": encoding}}}}


class Fault(BaseModel):
    """What went wrong."""

    code: str = Field(examples=["too_large"])
    message: str = Field(examples=["A request may have 100 MiB, and this one has more. Send a smaller picture."])


class ErrorBody(BaseModel):
    """Every answer with a status of 400 and more."""

    error: Fault


class Stage(BaseModel):
    """How far a running job is."""

    stage: str
    done: float
    total: float


class Size(BaseModel):
    """Pixels."""

    width: int
    height: int


class ResultFile(Size):
    """The file that was made."""

    type: str = Field(examples=["image/jpeg"])
    bytes: int
    name: str = Field(examples=["grandma_rasr.jpg"])


class Ref(BaseModel):
    """A photo that was considered."""

    index: int
    id: str | None
    name: str
    gallery: str | None
    verdict: Literal["same scene", "same kind", "unrelated", "not verified", "not compared"]
    """By geometry, then by looks, which nobody measured of a photo picked by hand; a search compares nothing."""
    accepted: bool
    score: float | None
    why: str
    share: float
    """Of the result: the detail that is this photo's."""
    changed: float
    """Share of the result that a generator drew with this photo in view: changed because of it."""
    width: int
    height: int
    colour: str = Field(examples=["#e66101"])
    picture: str


class JobOut(BaseModel):
    """A job, as it is now."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "5f0c6f0f4dcd2a91", "name": "grandma.jpg", "batch": None, "state": "queued", "position": 1,
                    "progress": None, "eta_seconds": 12.5, "created": "2026-11-28T10:00:00Z", "started": None,
                    "finished": None, "error": None, "input": {"width": 640, "height": 480}, "result": None,
                    "references": [], "drawn": None, "settings": {"scale": 4.0, "preset": "mini"},
                    "command": "rasr restore grandma.jpg", "links": {"self": "/jobs/5f0c6f0f4dcd2a91"},
                    "seconds": None,
                }
            ]
        }
    )  # fmt: skip

    id: str
    name: str
    batch: str | None
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    position: int | None
    progress: Stage | None
    eta_seconds: float | None
    created: str
    started: str | None
    finished: str | None
    error: str | None
    input: Size
    result: ResultFile | None
    references: list[Ref]
    drawn: float | None
    settings: dict[str, Any]
    notes: list[str] = []
    command: str
    links: dict[str, str]
    seconds: float | None


class JobList(BaseModel):
    """Some jobs, newest first."""

    jobs: list[JobOut]
    next: str | None


class BatchOut(BaseModel):
    """How far a batch is."""

    batch: str
    total: int
    queued: int
    running: int
    done: int
    failed: int
    cancelled: int


class Found(BaseModel):
    """What a search found, best first."""

    results: list[Ref]
    cleaned: bool


class GalleryOut(BaseModel):
    """A gallery."""

    name: str
    photos: int
    encoder: str
    writable: bool


class GalleryList(BaseModel):
    """All galleries."""

    galleries: list[GalleryOut]


class Problem(BaseModel):
    """What is wrong with a photo."""

    name: str
    message: str


class GalleryDetails(GalleryOut):
    """A gallery and what is wrong with its photos."""

    problems: list[Problem]


class NewGallery(BaseModel):
    """A gallery to be made."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1, max_length=63, examples=["Family"])


class Hashes(BaseModel):
    """SHA-256 digests of files, in hexadecimal."""

    model_config = ConfigDict(extra="forbid")
    hashes: list[str] = Field(max_length=5000, examples=[["0" * 64]])


class Unknown(BaseModel):
    """Those of the digests whose photos are to be sent."""

    unknown: list[str]


class PhotoOut(BaseModel):
    """A photo of a gallery."""

    id: str
    name: str
    width: int
    height: int
    problem: str | None


class PhotoList(BaseModel):
    """Some photos, by name."""

    photos: list[PhotoOut]
    next: str | None


class EvidenceOf(BaseModel):
    """Where the cells of the result lie in a photo, as shares of its width and height; null where it gave nothing."""

    index: int
    places: list[tuple[float, float] | None] | None


class EvidenceOut(BaseModel):
    """Where the result's detail is from, by cells."""

    cell: int
    columns: int
    rows: int
    references: list[EvidenceOf]
    shares: list[float]


class PresetOut(BaseModel):
    """A way to restore."""

    name: str
    summary: str
    available: bool
    why: str


class Limits(BaseModel):
    """What is accepted."""

    max_bytes: int
    max_pixels: int
    queue: int


class SettingOut(BaseModel):
    """A setting that can be sent with a job."""

    name: str
    help: str
    type: str
    default: Any
    choices: list[str] | None
    minimum: float | None
    maximum: float | None


class About(BaseModel):
    """What this service is and can do."""

    version: str
    presets: list[PresetOut]
    default_preset: str
    limits: Limits
    settings: list[SettingOut]
    auth: bool
    ready: bool
    """Whether the worker can work; the galleries that the service was started with are offered from then on."""


class Health(BaseModel):
    """The service works."""

    status: Literal["ok"] = "ok"
