"""Answers of services, photo by photo: one that is strange costs itself and not the page.

What a service sends is a stranger's text: nested without end, with numbers of thousands of digits, with addresses that
are none. The part that no reader here can mean is cut out before the page is parsed, and marked, so that the photo
which it belongs to is passed over.
"""

import re
from typing import Any

from rasr.files import parse_json

STRANGE = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError)
"""What reading an answer of another form raises."""

_DEEPEST = 32
_HOLE = b'"\\u0000"'
"""Stands where something was cut out: :func:`rasr.files.check_value` refuses it."""
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]|[-+.0-9eE]{60,}', re.DOTALL)
"""A text, a bracket, or a number longer than any that is meant."""


def parse_answer(body: bytes) -> Any:
    """Parse a JSON answer; what is nested too deeply and numbers too long become a mark. Raises ValueError."""
    try:
        return parse_json(body)
    except ValueError:
        return parse_json(_cut(body), deepest=0)  # each photo is checked by itself


def _cut(body: bytes) -> bytes:
    parts: list[bytes] = []
    depth = start = 0
    for token in _TOKEN.finditer(body):
        first = token[0][:1]
        if first in b"[{":
            depth += 1
            if depth == _DEEPEST + 1:
                parts.append(body[start : token.start()])
        elif first in b"]}":
            if depth == _DEEPEST + 1:
                parts.append(_HOLE)
                start = token.end()
            depth -= 1
        elif first != b'"' and depth <= _DEEPEST:
            parts += [body[start : token.start()], _HOLE]
            start = token.end()
    return b"".join([*parts, body[start:]])
