"""Galleries: the user's own good photos, searchable by likeness (the paper's RIRR)."""

from rasr.gallery.folder import is_gallery, open_gallery_or_folder
from rasr.gallery.gallery import Gallery
from rasr.gallery.info import GalleryInfo
from rasr.gallery.integrity import Problem, VerifyReport
from rasr.gallery.photo import Photo
from rasr.gallery.query import Query
from rasr.gallery.reference import Reference
from rasr.gallery.report import AddReport
from rasr.gallery.retrieval import CleanQuery, embed_query, retrieve

__all__ = [
    "AddReport",
    "CleanQuery",
    "Gallery",
    "GalleryInfo",
    "Photo",
    "Problem",
    "Query",
    "Reference",
    "VerifyReport",
    "embed_query",
    "is_gallery",
    "open_gallery_or_folder",
    "retrieve",
]
