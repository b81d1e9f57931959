"""Where photos come from: one protocol, four sources, no registry to fill."""

from rasr.dataset.config import DatasetConfig
from rasr.dataset.sources.commons import Commons
from rasr.dataset.sources.flickr import Flickr
from rasr.dataset.sources.folder import Folder
from rasr.dataset.sources.inaturalist import INaturalist
from rasr.dataset.sources.protocol import Page, Source
from rasr.dataset.web import Web

__all__ = ["Commons", "Flickr", "Folder", "INaturalist", "Page", "Source", "make_sources"]


def make_sources(config: DatasetConfig, web: Web) -> list[Source]:
    """The sources of a config, in its order of preference."""
    made: list[Source] = []
    for settings in config.source:
        licences, long_side = config.filters.licences, config.download.long_side
        if settings.kind == "flickr":
            made.append(Flickr(settings, web, licences, long_side))
        elif settings.kind == "inaturalist":
            made.append(INaturalist(settings, web, licences, long_side))
        elif settings.kind == "commons":
            made.append(Commons(settings, web, long_side, reachable=config.reachable))
        else:
            made.append(Folder(settings))
    return made
