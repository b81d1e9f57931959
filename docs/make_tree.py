"""Write the annotated tree of the package into the README, from the first line of every module's docstring.

python docs/make_tree.py          # rewrite the README's tree
python docs/make_tree.py --check  # exit 1 when it is out of date
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "rasr"
BEGIN, END = "<!-- tree: written by docs/make_tree.py -->", "<!-- end of tree -->"


def phrase(module: Path) -> str:
    """First line of a module's docstring, without the code marks that mean nothing in a plain block."""
    text = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8")))
    if not text:
        raise SystemExit(f"{module} has no docstring, so the README's tree has no phrase for it")
    return text.splitlines()[0].replace("``", "").rstrip(".")


def lines(folder: Path, indent: str = "") -> list[str]:
    """The tree below ``folder``: files first, then rooms, each with its phrase."""
    files = [path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
    found = [f"{indent}{path.name:<{32 - len(indent)}}{phrase(path)}" for path in files]
    for room in sorted(path.parent for path in folder.glob("*/__init__.py")):
        found += ["", f"{indent}{room.name + '/':<{32 - len(indent)}}{phrase(room / '__init__.py')}"]
        found += lines(room, indent + "    ")
    return found


def with_tree(readme: str) -> str:
    """The README's text with a fresh tree between its marks."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    tree = "\n".join(lines(PACKAGE))
    return f"{before}{BEGIN}\n```text\n{tree}\n```\n{END}{after}"


if __name__ == "__main__":
    path = ROOT / "README.md"
    old = path.read_text(encoding="utf-8")
    new = with_tree(old)
    if "--check" in sys.argv[1:]:
        sys.exit(new != old and "the README's tree is out of date: run python docs/make_tree.py")
    path.write_text(new, encoding="utf-8")
