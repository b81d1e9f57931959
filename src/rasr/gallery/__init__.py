"""Galleries: the user's own good photos, searchable by likeness (the paper's RIRR)."""

from rasr.gallery.folder import is_gallery, open_gallery_or_folder
from rasr.gallery.gallery import Gallery
from rasr.gallery.info import GalleryInfo
from rasr.gallery.integrity import Problem, VerifyReport
from rasr.gallery.photo import Photo
from rasr.gallery.reference import Reference
from rasr.gallery.report import AddReport

__all__ = [
    "AddReport",
    "Gallery",
    "GalleryInfo",
    "Photo",
    "Problem",
    "Reference",
    "VerifyReport",
    "is_gallery",
    "open_gallery_or_folder",
]
