"""The built-in demo agent: no login, no network, so that a fresh machine has somebody to talk to."""

from __future__ import annotations

import sys
from pathlib import Path

ADAPTER = Path(__file__).resolve().parents[2] / "runtime" / "adapters" / "demo.py"
CONTAINED = ["python3", "-I", "-S", "/app/adapters/demo.py"]  # the same in a container: runtime/Dockerfile


def command() -> list[str]:
    """What starts its app-server."""
    return [sys.executable, "-I", "-S", str(ADAPTER)]
