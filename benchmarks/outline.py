"""The outline of a source tree: sizes, public names, import arrows, and the files that a command enters.

    python benchmarks/outline.py                          the tree beside this script
    python benchmarks/outline.py --check                  exit 1 when a bar is missed
    python benchmarks/outline.py --static                 without the traced commands (a second)
    python benchmarks/outline.py --source ../old/src --python ../old/.venv/bin/python --list

Static figures are read from the sources. Names are counted twice: in ``__all__``s (a room's face repeats what it
re-exports), and as functions and classes without an underscore, where they are defined. Import arrows are those between
files, wherever the import stands: at the top, under TYPE_CHECKING, inside a function. A file is *entered* by a command
when one of its functions ran (module and class bodies, which run when a file is imported, do not count), in any thread;
the commands are real ones, each in a process of its own, on scikit-image's photos.
"""

from __future__ import annotations

import argparse
import ast
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from command_line import Tree, sample, save_photos, say_where

HERE = Path(__file__).resolve().parent.parent

ORDER = (
    (
        "errors",
        "device",
        "memory",
        "files",
        "objects",
        "object_path",
        "config",
        "progress",
        "options",
        "child",
        "ray_client",
        "cluster",
    ),
    ("images",),
    ("weights",),
    ("gallery", "generator", "registration"),
    ("degrade",),
    ("restoration",),
    ("training", "evaluation", "dataset", "service"),
    ("cli",),
    ("rasr",),
)
"""Rooms (and the files beside them), upstream first: a room imports from earlier lines, the first line's files also
from each other. ``rasr`` is the package's own face, ``__init__`` and ``__main__``."""
RENAMED = {"restore": "restoration", "home": "files"}
"""Rooms and top files of older trees."""
ONLY = {"degrade": {"images"}}
"""Rooms that import from these only, besides the first line."""

LARGEST, SMALL = 400, 60
BARS = {
    "files": 165,
    "lines": 22_000,
    "files of ≤ 60 lines, without __init__": 14,
    "largest file": LARGEST,
    "names in __all__s": 420,
    "import cycles": 0,
    "arrows up": 0,
    "restore mini, a reference from a gallery": 42,
    "search": 24,
}
"""Figure → the most it may be."""
AT_LEAST = {"median file": 130, "test lines : code lines": 0.66}
"""Figure → the least it may be."""

TRACER = """
import atexit, json, os, sys, threading
package, report = sys.argv[1:3]
del sys.argv[1:3]
OPTIMIZED = 1  # set for functions, not for the bodies of modules and classes
seen, entered = set(), set()
def watch(frame, event, argument):
    if event != "call":
        return
    code = frame.f_code
    if code in seen:
        return
    seen.add(code)
    in_body = code.co_qualname in {"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"}
    if code.co_flags & OPTIMIZED and not in_body and code.co_filename.startswith(package):
        entered.add((code.co_filename, code.co_qualname))
def write():
    sys.setprofile(None)
    loaded = sum(name == "rasr" or name.startswith("rasr.") for name in sys.modules)
    with open(report, "w") as file:
        json.dump({"entered": sorted(entered), "loaded": loaded}, file)
atexit.register(write)
threading.setprofile(watch)
sys.setprofile(watch)
from rasr.cli.main import main
main()
"""


@dataclass(frozen=True)
class File:
    """One source file: where, how long, how many names it exports and defines, what it imports."""

    path: Path
    lines: int
    exported: int
    public: int
    imports: frozenset[Path]

    @property
    def small(self) -> bool:
        """A short file that is not a room's face."""
        return self.lines <= SMALL and self.path.name != "__init__.py"


def read_tree(package: Path) -> dict[Path, File]:
    """Every Python file below ``package``, by its path relative to the package's parent."""
    paths = {path.relative_to(package.parent) for path in package.rglob("*.py")}
    files = {}
    for path in sorted(paths):
        text = (package.parent / path).read_text("utf-8")
        tree = ast.parse(text)
        targets = frozenset(set(_imports(tree, path, paths)) - {path})
        files[path] = File(path, len(text.splitlines()), _exported(tree), _public(tree), targets)
    return files


def _exported(tree: ast.Module) -> int:
    """The number of names in ``__all__``."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return len(ast.literal_eval(node.value))
    return 0


def _public(tree: ast.Module) -> int:
    """The number of functions and classes without an underscore."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return sum(isinstance(node, kinds) and not node.name.startswith("_") for node in tree.body)


def _imports(tree: ast.Module, path: Path, paths: set[Path]) -> Iterator[Path]:
    """The files of the package that a file imports, anywhere in it. A submodule stands for itself, not for its room."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = path.parts[: len(path.parts) - node.level] if node.level else ()
            module = ".".join([*above, *filter(None, [node.module])])
            names = [full if _file(full := f"{module}.{alias.name}", paths) else module for alias in node.names]
        else:
            continue
        yield from filter(None, (_file(name, paths) for name in names))


def _file(module: str, paths: set[Path]) -> Path | None:
    """The file of a module of the package, or None."""
    base = Path(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path in paths), None)


def room(path: Path) -> str:
    """The room that a file belongs to, a top file's own name, or ``rasr`` for the package's face."""
    name = path.parts[1] if len(path.parts) > 2 else path.stem
    return "rasr" if name.startswith("__") else RENAMED.get(name, name)


def arrows_up(files: dict[Path, File]) -> list[tuple[Path, Path]]:
    """Imports from a room that is not upstream."""
    rank = {name: place for place, names in enumerate(ORDER) for name in names}
    found = []
    for file in files.values():
        here = room(file.path)
        for target in file.imports:
            there = room(target)
            if here == there or rank[there] == rank[here] == 0:
                continue
            if rank[there] >= rank[here] or (rank[there] > 0 and there not in ONLY.get(here, {there})):
                found.append((file.path, target))
    return sorted(found)


def cycles(files: dict[Path, File]) -> list[list[Path]]:
    """Groups of files that import each other in a circle (Tarjan's strongly connected components)."""
    index: dict[Path, int] = {}
    low: dict[Path, int] = {}
    stack: list[Path] = []
    found: list[list[Path]] = []

    def visit(path: Path) -> None:
        index[path] = low[path] = len(index)
        stack.append(path)
        for target in sorted(files[path].imports):
            if target not in index:
                visit(target)
                low[path] = min(low[path], low[target])
            elif target in stack:
                low[path] = min(low[path], index[target])
        if low[path] == index[path]:
            group = stack[stack.index(path) :]
            del stack[stack.index(path) :]
            if len(group) > 1:
                found.append(sorted(group))

    for path in files:
        if path not in index:
            visit(path)
    return found


def journeys(folder: Path, tree: Tree) -> dict[str, list[object]]:
    """Title → arguments of the traced commands; makes their inputs and their gallery."""
    photos = save_photos(folder / "photos")
    sample("motorcycle_left.png", (0, 0, 480, 480), 120).save(folder / "query.png")
    (folder / "test").mkdir()
    sample("chelsea.png", (100, 0, 228, 128)).save(folder / "test" / "cat.png")
    tree.run("gallery", "add", "gallery", photos, cwd=folder)
    restore: list[object] = ["restore", "query.png", "--scale", "2", "--device", "cpu"]
    step = [
        "data.crop=64", "data.workers=0", "loop.steps=1", "loop.batch=1", "optimizer.warmup=0", "loss.perceptual=0",
        "data.pool=4", "data.pool_side=96",
    ]  # fmt: skip
    model = Path(__file__).parents[1] / "tests" / "small.toml"
    (folder / "small.toml").write_text(
        f'name = "small"\nstage = "backbone"\n[model]\npreset = "{model}"\n[data]\n[loop]\nsteps = 1\n'
    )
    return {
        "restore mini, a reference from a gallery": [*restore, "-g", "gallery", "-o", "mini.png", "--preset", "mini"],
        "restore bicubic, with the gallery": [*restore, "-g", "gallery", "-o", "b.png", "--preset", "bicubic"],
        "restore bicubic": [*restore, "-o", "bicubic.png", "--preset", "bicubic"],
        "search": ["search", "gallery", "query.png"],
        "gallery add": ["gallery", "add", "another", photos],
        "train, one step": ["train", "small.toml", "--photos", photos, "--out", "run"]
        + [word for change in step for word in ("--set", change)],
        "evaluate, one picture, bicubic": [
            "evaluate", "test", "--method", "bicubic", "--references", "none", "--metrics", "psnr,ssim", "-o", "table",
        ],
    }  # fmt: skip


def trace(tree: Tree, *, listed: bool) -> dict[str, int]:
    """Run the commands and print what each entered; returns title → number of files."""
    package = tree.source / "rasr"
    counts = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, arguments in journeys(folder, tree).items():
            report = folder / "report.json"
            tree.run(f"{package}/", report, *arguments, cwd=folder, script=TRACER)
            found = json.loads(report.read_text())
            files: dict[str, int] = defaultdict(int)
            for path, _ in found["entered"]:
                files[str(Path(path).relative_to(package))] += 1
            counts[title] = len(files)
            print(f"{title:<42} {len(files):>4} files entered, {len(found['entered']):>4} functions, "
                  f"{found['loaded']:>4} modules loaded", flush=True)  # fmt: skip
            for path, functions in sorted(files.items()) if listed else ():
                print(f"    {path} {functions}")
    return counts


def outline(package: Path, tests: Path) -> dict[str, float]:
    """Print the static figures; returns those that have a bar."""
    files = read_tree(package)
    rooms: dict[str, list[File]] = defaultdict(list)
    for file in files.values():
        named = room(file.path)
        rooms["(top)" if named in ORDER[0] or named == "rasr" else named].append(file)
    print(f"{'room':<12} {'files':>5} {'lines':>6} {'median':>6} {'max':>4} {'≤ 60':>4} {'__all__':>7} {'public':>6}")
    for name, inside in [*sorted(rooms.items(), key=lambda entry: -len(entry[1])), ("all", list(files.values()))]:
        lines = [file.lines for file in inside]
        sizes = f"{len(inside):>5} {sum(lines):>6} {statistics.median(lines):>6.0f} {max(lines):>4}"
        small, exported, public = (
            sum(getattr(file, key) for file in inside) for key in ("small", "exported", "public")
        )
        print(f"{name:<12} {sizes} {small:>4} {exported:>7} {public:>6}")
    circles, up = cycles(files), arrows_up(files)
    for group in circles:
        print("cycle:", " ".join(map(str, group)))
    for source, target in up:
        print(f"arrow up: {source} imports {target}")
    lines = [file.lines for file in files.values()]
    tested = sum(len(path.read_text("utf-8").splitlines()) for path in tests.rglob("*.py"))
    return {
        "files": len(files),
        "lines": sum(lines),
        "median file": statistics.median(lines),
        "files of ≤ 60 lines, without __init__": sum(file.small for file in files.values()),
        "largest file": max(lines),
        "names in __all__s": sum(file.exported for file in files.values()),
        "public functions and classes": sum(file.public for file in files.values()),
        "import cycles": len(circles),
        "arrows up": len(up),
        "test lines : code lines": round(tested / sum(lines), 3),
    }


def main() -> int:
    """Print the figures, then the bars."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=HERE / "src", help="folder that holds the package")
    parser.add_argument("--python", default=sys.executable, help="interpreter for the traced commands  [this one]")
    parser.add_argument("--static", action="store_true", help="leave the traced commands out")
    parser.add_argument("--list", action="store_true", help="name the files that each command enters")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    options = parser.parse_args()
    source = options.source.resolve()
    figures = outline(source / "rasr", source.parent / "tests")
    if not options.static:
        print()
        with tempfile.TemporaryDirectory() as home:
            tree = Tree(source, options.python, Path(home))
            figures |= trace(tree, listed=options.list)
    print()
    missed = 0
    for name, value in figures.items():
        bar = next((f"{sign} {table[name]}" for sign, table in (("≤", BARS), ("≥", AT_LEAST)) if name in table), "")
        kept = value <= BARS.get(name, value) and value >= AT_LEAST.get(name, value)
        missed += not kept
        print(f"{name:<42} {value:>8g}  {bar:<9} {'' if kept else 'MISSED'}".rstrip())
    say_where()
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
