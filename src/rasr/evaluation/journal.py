"""Journal of finished work, so that nothing is done twice, and the scores kept in it."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rasr.evaluation.inputs import TestInput
from rasr.evaluation.metrics import ImageMetric, SetMetric
from rasr.evaluation.rows import Row
from rasr.files import JsonLines
from rasr.images import FloatImage, read_picture

NUMBER = (int, float)


class Journal:
    """Records by key in a file of JSON lines; the last one of a key counts.

    Keys hold everything a record depends on, so a record is either right or not found.
    """

    def __init__(self, path: Path) -> None:
        self._lines = JsonLines(path)
        self._records = {record["key"]: record for record in self._lines.read() if isinstance(record.get("key"), str)}

    def get(self, key: str, **shape: Any) -> dict[str, Any] | None:
        """Return the record, or None; also for one whose fields are not of ``shape``, which is none of ours.

        A shape is a type or several, a list of one shape, or a dictionary of them.
        """
        record = self._records.get(key)
        if record is None or not _fits(record, shape):
            return None
        return record

    def put(self, key: str, **record: Any) -> dict[str, Any]:
        """Store a record for good before returning it. Raises OutputError when it cannot be written."""
        full = {"key": key, **record}
        self._lines.append(full)
        self._records[key] = full
        return full

    def recall(self, key: str, make: Callable[[], Mapping[str, Any]], **shape: Any) -> dict[str, Any]:
        """Return the record as :meth:`get` does; where there is none, make and store it. Raises as ``make`` does."""
        return self.get(key, **shape) or self.put(key, **make())

    @staticmethod
    def key_of(*parts: Any) -> str:
        """Hash JSON values: the same parts give the same key on any machine."""
        text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def _fits(value: Any, shape: Any) -> bool:
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(_fits(value.get(name), inner) for name, inner in shape.items())
    if isinstance(shape, list):
        return isinstance(value, list) and all(_fits(inner, shape[0]) for inner in value)
    return isinstance(value, shape)


class Scorer:
    """Fills rows with scores, each measured once and kept by the content of its files."""

    def __init__(self, metrics: Sequence[ImageMetric | SetMetric], journal: Journal, cache: Path) -> None:
        self._images = [metric for metric in metrics if isinstance(metric, ImageMetric)]
        self._sets = [metric for metric in metrics if isinstance(metric, SetMetric)]
        self._journal = journal
        self._cache = cache

    def score_picture(self, row: Row, item: TestInput, output: Path) -> None:
        """Measure one output by all image metrics; one that fails is a problem of the row."""

        @cache
        def pair() -> tuple[FloatImage, FloatImage]:
            return read_picture(output).pixels, read_picture(item.truth).opaque()

        for metric in self._images:
            info = metric.info

            def measure(metric: ImageMetric = metric) -> dict[str, Any]:
                value = metric.measure(*pair())
                if not math.isfinite(value):  # nothing that can be averaged, nor kept as JSON
                    raise ValueError(f"the score is {value}")
                return {"metric": metric.info.name, "image": item.name, "value": value}

            key = Journal.key_of("score", info.name, info.protocol, item.truth_hash, row.outputs[item.name])
            try:
                record = self._journal.recall(key, measure, value=NUMBER)
            except ValueError as error:
                row.problems[item.name] = f"{info.name}: {error}"
            else:
                row.scores.setdefault(info.name, {})[item.name] = record["value"]

    def score_set(self, row: Row, inputs: Sequence[TestInput], outputs: Mapping[str, Path]) -> None:
        """Measure all distribution metrics of a row, over the pictures that are there."""
        present = [item for item in inputs if item.name in row.outputs]
        if len(present) < 2:
            return
        contents = [(item.truth_hash, row.outputs[item.name]) for item in present]
        for metric in self._sets:

            def measure(metric: SetMetric = metric) -> dict[str, Any]:
                restored = [self._features(metric, outputs[item.name], row.outputs[item.name]) for item in present]
                truth = [self._features(metric, item.truth, item.truth_hash) for item in present]
                value = metric.distance(np.stack(restored), np.stack(truth))
                return {"metric": metric.info.name, "images": len(present), "value": value}

            key = Journal.key_of("set", metric.info.name, metric.info.protocol, contents)
            row.sets[metric.info.name] = self._journal.recall(key, measure, value=NUMBER)["value"]

    def _features(self, metric: SetMetric, path: Path, content: str) -> NDArray[np.float32]:
        file = self._cache / f"{Journal.key_of('features', metric.info.weights, content)}.npy"
        if file.is_file():
            return np.asarray(np.load(file, allow_pickle=False), dtype=np.float32)
        features = metric.features(read_picture(path).pixels)
        self._cache.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part.npy")
        np.save(part, features, allow_pickle=False)
        part.replace(file)
        return features
