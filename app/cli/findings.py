"""What ./argus doctor finds."""

from __future__ import annotations

from dataclasses import dataclass

OK, INFO, WARNING, BROKEN = "ok", "info", "warning", "broken"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    `level`: ok; info (good to know); warning (works, but not well or not safely); broken (something will not work).
    `mend` is the command or the act that mends it; empty where there is nothing to mend.
    """

    level: str
    what: str
    text: str
    mend: str = ""
