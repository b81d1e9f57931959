"""Registration: photos of the same scene found by geometry, brought into place, and their real detail fused."""

from rasr.registration.faces import Face, find_faces, find_faces_seen
from rasr.registration.features import LocalFeatures, extract_reference, fingerprint, pack, unpack
from rasr.registration.fusion import Evidence, fuse
from rasr.registration.place import Placed, place
from rasr.registration.scene import SceneMatch, SceneQuery

__all__ = [
    "Evidence",
    "Face",
    "LocalFeatures",
    "Placed",
    "SceneMatch",
    "SceneQuery",
    "extract_reference",
    "find_faces",
    "find_faces_seen",
    "fingerprint",
    "fuse",
    "pack",
    "place",
    "unpack",
]
