"""Galleries: the user's own good photos, searchable by likeness (the paper's RIRR)."""

from rasr.gallery.catalogue import AddReport
from rasr.gallery.gallery import Gallery, gallery_address, open_gallery_or_folder
from rasr.gallery.photo import Photo, Reference
from rasr.gallery.retrieval import retrieve
from rasr.gallery.stores import copy_gallery, is_gallery
from rasr.gallery.verify import GalleryInfo, VerifyReport

__all__ = [
    "AddReport",
    "Gallery",
    "GalleryInfo",
    "Photo",
    "Reference",
    "VerifyReport",
    "copy_gallery",
    "gallery_address",
    "is_gallery",
    "open_gallery_or_folder",
    "retrieve",
]
