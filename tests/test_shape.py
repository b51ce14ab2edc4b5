"""The shape of the house: who may import whom, and how large a room may be."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted([*ROOT.glob("app/**/*.py"), *ROOT.glob("runtime/**/*.py"), ROOT / "wsgi.py", ROOT / "gunicorn.conf.py"])

# What each room of app/ may import of the others, beside itself.
WORDS = {"settings", "errors", "clock", "pool", ""}
BELOW = {
    "settings": {"errors", "kinds"},
    "kinds": set(),
    "errors": set(),
    "clock": set(),
    "store": WORDS,
    "relay": WORDS,
    "agents": WORDS,
    "channels": WORDS,
    "provisioners": WORDS | {"relay"},  # Traits, what a runtime is to the relay
    "services": WORDS | {"relay", "store", "agents", "provisioners"},
    "rpc": WORDS | {"services", "relay"},
    "routes": WORDS | {"rpc", "services", "relay", "store", "wiring"},
    "wiring": WORDS | {"services", "store", "agents", "provisioners", "relay", "channels"},
    "serving": WORDS | {"relay", "wiring"},
    "cli": WORDS | {"wiring", "agents"},
    "wsgi": WORDS | {"routes", "serving", "wiring"},
}
# Third-party packages that one room alone may import.
OWNERS = {
    "flask": {"routes"},
    "flask_sock": {"routes"},
    "sqlalchemy": {"store"},
    "alembic": {"store"},
    "wsproto": {"relay", "routes", "cli"},
    "docker": {"provisioners"},
}
# In the drivers' rooms: what a driver leaves to files of its own, or all may use.
HELPERS = {"__init__", "processes", "engine", "containers", "networks", "mounts"}
# One file each because they run alone inside a runtime: nothing to import from.
LONG = {"runtime/bridge.py": 660, "runtime/adapters/demo.py": 850}


def room(path: Path) -> str:
    """The room of a file: the folder below app/, or the name of a file beside them."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] != "app":
        return "wsgi" if parts[0] in ("wsgi", "gunicorn.conf") else parts[0]
    return "" if parts[1] == "__init__" else parts[1]


def imported(path: Path) -> set[str]:
    """Every module that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_downwards_only(path: Path) -> None:
    here = room(path)
    for module in imported(path):
        first, *rest = module.split(".")
        if first == "app":
            assert here != "runtime", f"{path.name} runs alone and imports {module}"
            other = (
                rest[0] if rest and ((ROOT / "app" / rest[0]).is_dir() or (ROOT / f"app/{rest[0]}.py").exists()) else ""
            )
            assert other == here or other in BELOW[here], f"{path}: {here} may not import {module}"
        elif first in OWNERS:
            assert here in OWNERS[first], f"{path}: only {OWNERS[first]} may import {first}"


def test_drivers_do_not_import_each_other() -> None:
    for folder in ("provisioners", "agents", "channels"):
        drivers = {p.stem for p in (ROOT / "app" / folder).glob("*.py")} - HELPERS
        for driver in drivers:
            names = imported(ROOT / "app" / folder / f"{driver}.py")
            for other in drivers - {driver}:
                assert not any(name.startswith(f"app.{folder}.{other}") for name in names)


def test_only_settings_reads_the_environment() -> None:
    for path in FILES:
        if room(path) in ("settings", "runtime", "cli"):
            continue
        tree = ast.parse(path.read_text())
        reads = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr in ("environ", "getenv")]
        own = [n for n in reads if isinstance(n.value, ast.Name) and n.value.id == "os"]
        assert not own, f"{path} reads the environment"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_is_read_in_one_sitting(path: Path) -> None:
    limit = LONG.get(str(path.relative_to(ROOT)), 420)
    assert len(path.read_text().splitlines()) <= limit


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text())
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_function_is_longer_than_sixty_lines(path: Path) -> None:
    for function in functions(path):
        assert function.end_lineno - function.lineno < 60, function.name


def test_public_functions_say_what_they_do() -> None:
    silent = []
    for path in FILES:
        if room(path) == "runtime":
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                members = node.body if isinstance(node, ast.ClassDef) else []
                public = [m for m in members if isinstance(m, ast.FunctionDef) and not m.name.startswith("_")]
                silent += [f"{path.name}:{n.name}" for n in [node, *public] if not ast.get_docstring(n)]
    assert not silent


def test_nothing_is_left_to_do() -> None:
    words = ("TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK")
    for path in FILES:
        assert not any(word in path.read_text() for word in words), path


def test_no_link_out_of_the_tree_is_part_of_it() -> None:
    if not (ROOT / ".git").exists():
        return  # an unpacked archive
    listed = subprocess.run(["git", "ls-files", "-s"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert listed and not [line for line in listed.splitlines() if line.startswith("120000")]
