"""Measuring outputs, each once: scores and features are kept by the content of the files they came from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rasr.evaluation.inputs import TestInput
from rasr.evaluation.journal import Journal, key_of
from rasr.evaluation.metrics import ImageMetric, SetMetric
from rasr.evaluation.rows import Row
from rasr.images import read_picture

__all__ = ["Scorer"]


class Scorer:
    """Fills rows with scores."""

    def __init__(self, metrics: Sequence[ImageMetric | SetMetric], journal: Journal, cache: Path) -> None:
        self._images = [metric for metric in metrics if isinstance(metric, ImageMetric)]
        self._sets = [metric for metric in metrics if isinstance(metric, SetMetric)]
        self._journal = journal
        self._cache = cache

    def score_picture(self, row: Row, item: TestInput, output: Path) -> None:
        """All single-picture metrics of one output; a metric that cannot take the picture becomes a problem of it."""
        wanted = {metric.info.name: self._key(metric, item, row.outputs[item.name]) for metric in self._images}
        records = {name: self._journal.get(key) for name, key in wanted.items()}
        if any(record is None for record in records.values()):
            restored, truth = read_picture(output).pixels, read_picture(item.truth).pixels
            for metric in self._images:
                name = metric.info.name
                if records[name] is None:
                    try:
                        value = metric.measure(restored, truth)
                    except ValueError as error:
                        row.problems[item.name] = f"{name}: {error}"
                        continue
                    records[name] = self._journal.put(wanted[name], metric=name, image=item.name, value=value)
        for name, record in records.items():
            if record is not None:
                row.scores.setdefault(name, {})[item.name] = record["value"]

    def score_set(self, row: Row, inputs: Sequence[TestInput], outputs: dict[str, Path]) -> None:
        """All distribution metrics of a row, over the pictures that are there."""
        present = [item for item in inputs if item.name in row.outputs]
        if len(present) < 2:
            return
        for metric in self._sets:
            key = key_of(
                "set",
                metric.info.name,
                metric.info.protocol,
                [(item.truth_hash, row.outputs[item.name]) for item in present],
            )
            record = self._journal.get(key)
            if record is None:
                restored = [self._features(metric, outputs[item.name], row.outputs[item.name]) for item in present]
                truth = [self._features(metric, item.truth, item.truth_hash) for item in present]
                value = metric.distance(np.stack(restored), np.stack(truth))
                record = self._journal.put(key, metric=metric.info.name, images=len(present), value=value)
            row.sets[metric.info.name] = record["value"]

    def _features(self, metric: SetMetric, path: Path, content: str) -> NDArray[np.float32]:
        file = self._cache / f"{key_of('features', metric.info.weights, content)}.npy"
        if file.is_file():
            return np.asarray(np.load(file, allow_pickle=False), dtype=np.float32)
        features = metric.features(read_picture(path).pixels)
        self._cache.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part.npy")
        np.save(part, features, allow_pickle=False)
        part.replace(file)
        return features

    @staticmethod
    def _key(metric: ImageMetric, item: TestInput, output_hash: str) -> str:
        return key_of("score", metric.info.name, metric.info.protocol, item.truth_hash, output_hash)
