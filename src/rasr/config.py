"""Configuration files: TOML to a checked model, with one sentence for whatever is wrong."""

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from rasr.errors import ConfigError
from rasr.files import parse_toml, read_text

Model = TypeVar("Model", bound=BaseModel)


class Table(BaseModel):
    """Table of a configuration or a stored record: immutable, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def read_toml(path: str | Path, what: str = "configuration") -> dict[str, Any]:
    """Read a TOML file. Raises ConfigError naming the file, and ``what`` it should have been."""
    text = read_text(path, what, ConfigError)
    try:
        return parse_toml(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not a {what}: {error}.") from error


def check_table(model: type[Model], table: Mapping[str, Any], name: str | Path, *, context: Any = None) -> Model:
    """Validate a table read from ``name``. Raises ConfigError naming the file, the key and a near match.

    ``context`` is handed to the model's validators.
    """
    try:
        return model.model_validate(dict(table), context=context)
    except ValidationError as error:
        fault = explain_fault(model, error)
        raise ConfigError(f"{name}: {fault}" + ("" if fault.endswith("?") else ".")) from error


def explain_fault(model: type[BaseModel], error: ValidationError) -> str:
    """Say in one phrase what is wrong first: ``loss.gram: ...`` or ``unknown key 'loss.gran'. Did you mean ...?``."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        message = first["msg"].removeprefix("Value error, ")
        return f"{place}: {message}" if place else message
    known = _fields_at(model, [part for part in first["loc"][:-1] if isinstance(part, str)])
    near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.0)
    return f"unknown key '{place}'" + (f". Did you mean '{near[0]}'?" if near else "")


def _fields_at(model: type[BaseModel], tables: list[str]) -> list[str]:
    """Field names of the table that ``tables`` leads to, through optional and repeated tables as well."""
    for name in tables:
        field = model.model_fields.get(name)
        inner = next((part for part in _parts(field.annotation) if part is not None), None) if field else None
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


def _parts(annotation: Any) -> list[type[BaseModel] | None]:
    """The models that an annotation such as ``tuple[Table, ...]`` or ``Table | None`` is made of."""
    if isinstance(annotation, type) and not get_args(annotation):
        return [annotation if issubclass(annotation, BaseModel) else None]
    return [part for argument in get_args(annotation) for part in _parts(argument)]
