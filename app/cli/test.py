"""./argus test: the whole suite, or what pytest is told to run."""

from __future__ import annotations

import os
import sys
from argparse import Namespace

from app.cli.environment import ROOT


def run(args: Namespace) -> int:
    """Becomes pytest, in the project's folder; paths among the arguments are the project's. Never returns."""
    os.chdir(ROOT)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *args.pytest])
