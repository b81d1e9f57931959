"""Write docs/tree.md, the package's files with a phrase each, from the first line of every module's docstring.

python docs/make_tree.py          # rewrite docs/tree.md
python docs/make_tree.py --check  # exit 1 when it is out of date
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "rasr"
PAGE = ROOT / "docs" / "tree.md"


def phrase(module: Path) -> str:
    """First line of a module's docstring, without the code marks that mean nothing in a plain block."""
    text = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8")))
    if not text:
        raise SystemExit(f"{module} has no docstring, so docs/tree.md has no phrase for it")
    return text.splitlines()[0].replace("``", "").rstrip(".")


def lines(folder: Path, indent: str = "") -> list[str]:
    """The tree below ``folder``: files first, then rooms, each with its phrase."""
    files = [path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
    found = [f"{indent}{path.name:<{32 - len(indent)}}{phrase(path)}" for path in files]
    for room in sorted(path.parent for path in folder.glob("*/__init__.py")):
        found += ["", f"{indent}{room.name + '/':<{32 - len(indent)}}{phrase(room / '__init__.py')}"]
        found += lines(room, indent + "    ")
    return found


def page() -> str:
    """The whole page."""
    return f"# The tree\n\nWritten by `python docs/make_tree.py`.\n\n```text\n{chr(10).join(lines(PACKAGE))}\n```\n"


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        sys.exit(
            PAGE.read_text(encoding="utf-8") != page() and "docs/tree.md is out of date: run python docs/make_tree.py"
        )
    PAGE.write_text(page(), encoding="utf-8")
