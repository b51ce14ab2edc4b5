"""Everything that is measured, one after the other:

    .venv/bin/python bench [--rounds 3]

Ends with 1 if a budget is exceeded. Each part can be run on its own and has options of its own (--help).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parent


def main() -> int:
    """Run the three parts; 0 if all of them did well."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure everything.")
    parser.add_argument("--rounds", type=int, default=3, help="how often each alternative is measured")
    rounds = ["--rounds", str(parser.parse_args().rounds)]
    parts = [["run.py", *rounds], ["lifecycle.py"], ["bridge.py", *rounds]]
    codes = [subprocess.run([sys.executable, BENCH / name, *options]).returncode for name, *options in parts]
    return 1 if any(codes) else 0


if __name__ == "__main__":
    sys.exit(main())
