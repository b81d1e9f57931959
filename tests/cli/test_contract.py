"""The command line that scripts rely on: every verb's options and arguments, against the record in contract.json.

What is recorded may be added to and not taken from: ``python -m tests.cli.test_contract`` writes the record anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from rasr.cli.main import rasr

RECORD = Path(__file__).with_name("contract.json")


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """Every command that can be typed, with its words."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for verb in command.list_commands(context):
            below = command.get_command(context, verb)
            assert below is not None, verb
            yield from commands(below, f"{name} {verb}".strip())
    else:
        yield name, command


def describe(parameter: click.Parameter) -> dict[str, Any]:
    """What a script can depend on."""
    kind = parameter.type
    facts: dict[str, Any] = {"required": parameter.required, "many": parameter.multiple or parameter.nargs == -1}
    if isinstance(parameter, click.Option):
        facts |= {"also": sorted({*parameter.opts, *parameter.secondary_opts}), "flag": parameter.is_flag}
        default = parameter.default
        facts["default"] = default if isinstance(default, str | int | float | bool) else None
    if isinstance(kind, click.Choice):
        facts["choices"] = list(kind.choices)
    elif isinstance(kind, click.IntRange | click.FloatRange):
        facts["range"] = [kind.min, kind.max]
    return facts


def surface() -> dict[str, dict[str, Any]]:
    """Command → option or argument → its facts."""
    return {
        words: {
            (max(one.opts, key=len) if isinstance(one, click.Option) else str(one.name)): describe(one)
            for one in command.params
        }
        for words, command in commands(rasr, "")
    }


def test_every_option_is_what_it_was() -> None:
    recorded = json.loads(RECORD.read_text("utf-8"))
    assert surface() == recorded


def write() -> str:
    """The record's text: an option a line."""
    blocks = []
    for words, found in surface().items():
        lines = [f"  {json.dumps(name)}: {json.dumps(facts, ensure_ascii=False)}" for name, facts in found.items()]
        blocks.append(f'"{words}": {{\n' + ",\n".join(lines) + "\n}")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


if __name__ == "__main__":
    RECORD.write_text(write(), "utf-8")
