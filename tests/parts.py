"""What a test does when a part of the real world (Codex, a browser, …) is not on this machine."""

import os
import shutil
from pathlib import Path

import pytest

PARTS = ("codex", "autobahn", "browser", "npm", "docker", "node", "axe")
NODE_PARTS = Path(__file__).resolve().parent.parent / ".agents" / "node" / "node_modules"
HOW_NODE = "node on PATH, and tests/tools/install_node_parts.sh .agents/node"


def require(part: str, present: bool, how: str) -> None:
    """Go on when `present`; else skip the test, or fail it when this run insists on the part.

    A run insists by naming parts in ARGUS_TEST_REQUIRE, separated by commas. `how` says how to get the
    part and ends up in the reason. A part that is not in PARTS is a mistake (ValueError), on either side:
    a misspelt one would silently insist on nothing.
    """
    __tracebackhide__ = True
    insisted = {name.strip() for name in os.environ.get("ARGUS_TEST_REQUIRE", "").split(",")} - {""}
    unknown = ({part} | insisted) - set(PARTS)
    if unknown:
        raise ValueError(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if present:
        return
    reason = f"{part} is not installed ({how})"
    if part in insisted:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason, allow_module_level=True)


def node_part(package: str, part: str) -> Path:
    """The folder of an npm package that tests use; without it (`node`: or without node itself) see `require`."""
    folder = NODE_PARTS / package
    there = (folder / "package.json").is_file() and (part != "node" or shutil.which("node") is not None)
    require(part, there, HOW_NODE)
    return folder
