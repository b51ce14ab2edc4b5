"""Kinds of settings: how the text of a variable becomes a value, and what is allowed, in words. Pure."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MEMORY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([bkmgt]?)(?:(?<=[kmgt])i?b)?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Kind:
    """How the text of a variable becomes a value, and what is allowed, in words."""

    allowed: str
    parse: Callable[[str], Any]


def _path(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_absolute():
        raise ValueError
    return path


def _secret(text: str) -> str:
    if text and (len(text) < 8 or len(text.split()) != 1 or not text.isprintable()):
        raise ValueError
    return text


def _items(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _memory(text: str) -> int | None:
    """Bytes: a number with an optional unit (b, k, kb, kib, m, ... t), powers of 1024. None for an empty text."""
    if not text:
        return None
    found = MEMORY.fullmatch(text)
    value = int(float(found[1]) * 1024 ** "bkmgt".index(found[2].lower() or "b")) if found else 0
    if not 0 < value < 2**63:
        raise ValueError
    return value


def _cpus(text: str) -> float | None:
    value = float(text) if text else None
    if value is not None and not 0 < value <= 1024:
        raise ValueError
    return value


def _pids(text: str) -> int | None:
    value = int(text) if text else None
    if value is not None and not 0 < value <= 2**22:
        raise ValueError
    return value


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", text):
        raise ValueError
    return text


def _paths(text: str) -> tuple[Path, ...]:
    return tuple(_path(item) for item in _items(text))


def _subnets(text: str) -> ipaddress.IPv4Network:
    network = ipaddress.IPv4Network(text)
    if not 8 <= network.prefixlen <= 24:
        raise ValueError
    return network


def _upstreams(text: str) -> dict[str, dict[str, Any]]:
    table = json.loads(text) if text else {}
    if not isinstance(table, dict):
        raise ValueError
    for row in table.values():
        if not isinstance(row, dict) or not isinstance(row.get("port", 7777), int):
            raise ValueError
        if row.get("bridge") and not isinstance(row.get("secret"), str):
            raise ValueError
    return table


def whole(low: int, high: int) -> Kind:
    """A whole number within bounds."""

    def parse(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return Kind(f"a whole number from {low} to {high}", parse)


def seconds(low: float, high: float) -> Kind:
    """A number of seconds within bounds, decimals allowed."""

    def parse(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return Kind(f"a number of seconds from {low:g} to {high:g}", parse)


def choice(*words: str) -> Kind:
    """One of these words, case and blanks around it ignored."""

    def parse(text: str) -> str:
        word = text.strip().lower()
        if word not in words:
            raise ValueError
        return word

    return Kind("one of " + ", ".join(words), parse)


TEXT = Kind("any text", str.strip)
SECRET = Kind("at least 8 characters without blanks; treat it as a password", _secret)
PATH = Kind("an absolute path, or one that begins with ~", _path)
MAYBE_PATH = Kind(PATH.allowed, lambda text: _path(text) if text else None)
PATHS = Kind("a comma-separated list of absolute paths", _paths)
ITEMS = Kind("a comma-separated list", _items)
NAME = Kind("a name of letters, digits, `.`, `_` and `-`", _name)
CPUS = Kind("a number above 0", _cpus)
MEMORY_SIZE = Kind("a number above 0 with an optional unit: b, k, m, g or t, also as kb or kib", _memory)
PIDS = Kind("a whole number above 0", _pids)
SUBNETS = Kind("a private IPv4 network from /8 to /24", _subnets)
UPSTREAMS = Kind('a JSON object {"name": {"host", "port", "bridge", "secret"}}', _upstreams)
