"""What is counted of all sessions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Counters:
    """What happened to all sessions since the gateway started."""

    turns: int = 0
    agent_restarts: int = 0
    links_lost: int = 0
    overflows: int = 0
