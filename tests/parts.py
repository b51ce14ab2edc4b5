"""What a test does when a part of the real world (Codex, a browser, …) is not on this machine."""

import os

import pytest

PARTS = ("codex", "autobahn", "browser", "npm", "docker")


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
