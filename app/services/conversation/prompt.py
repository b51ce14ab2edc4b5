"""Assembles what an agent is told in a gateway-owned turn (contract 8.7: clients read the labels). Pure.

Blocks joined by a blank line: `# Project Context` with `[NAME] … [/NAME]` blocks, then `[SOURCE]` and `[ATTACHMENTS]`
of the input, then the text itself, then `Instructions:`. The text begins behind the last `[/NAME]` line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

INSTRUCTIONS = """Instructions:
- Answer the user first.
- Act where that is needed, with the tools you have.
- End with a short summary of what you did."""
ADVICE = 'Where a tool takes a node, node="self" is this session\'s own runtime, the same as runtime:<sessionId>.'
PLAIN_SOURCE = ("channel", "chatKey")


@dataclass(frozen=True)
class ContextFile:
    """A file of the workspace as it was read: its text, cut where it was too long, or why it can't be read."""

    name: str
    text: str = ""
    size: int = 0  # bytes in all
    problem: str = ""


@dataclass(frozen=True)
class Skill:
    """A skill of the workspace."""

    path: str
    name: str
    description: str


def project_context(session: str, files: Iterable[ContextFile], skills: Iterable[Skill], most: int) -> str:
    """The first block. `most`: characters of all files together; what is cut is said in its place."""
    own = f"[ARGUS]\nsessionId: {session}\nselfNodeId: runtime:{session}\n{ADVICE}\n[/ARGUS]"
    blocks, left = ["# Project Context", own], most
    for file in files:
        body = file.problem or file.text.strip()
        cut = body[: max(left, 0)]
        if len(cut) < len(body) or len(file.text.encode()) < file.size:
            cut += f"\n[cut here: {file.name} has {file.size} bytes; the file has the rest]"
        left -= len(body)
        blocks.append(f"[{file.name}]\n{cut}\n[/{file.name}]")
    listed = [f"- {skill.name}: {skill.description} ({skill.path})" for skill in skills]
    if listed:
        blocks.append("[SKILLS]\nRead a skill's file before you use it.\n" + "\n".join(listed) + "\n[/SKILLS]")
    return "\n\n".join(blocks)


def user_turn(context: str | None, text: str, source: dict[str, Any] | None, attachments: list[dict[str, Any]]) -> str:
    """What is sent for one input. `context` None: it was sent before and has not changed."""
    blocks = [context, source_block(source), attachments_block(attachments), text, INSTRUCTIONS]
    return "\n\n".join(block for block in blocks if block)


def batch(texts: list[str]) -> str:
    """Several queued inputs as one (contract 8.5)."""
    return "\n".join(["Follow-ups (batched):", *(f"{n}) {text}" for n, text in enumerate(texts, 1))])


def source_block(source: dict[str, Any] | None) -> str:
    """Where an input came from; what the sender said of itself stays on one line each."""
    if not source:
        return ""
    names = [*PLAIN_SOURCE, *sorted(set(source) - set(PLAIN_SOURCE))]
    lines = [f"{_one_line(name)}: {_one_line(source[name])}" for name in names if name in source]
    return "\n".join(["[SOURCE]", *lines, "[/SOURCE]"])


def attachments_block(attachments: list[dict[str, Any]]) -> str:
    """The files that came with an input."""
    if not attachments:
        return ""
    lines = []
    for each in attachments:
        about = ", ".join(_one_line(each[name]) for name in ("name", "mime") if each.get(name))
        lines.append(f"- {_one_line(each['path'])}" + (f" ({about})" if about else ""))
    return "\n".join(["[ATTACHMENTS]", *lines, "[/ATTACHMENTS]"])


def fingerprint(context: str) -> str:
    """The same for the same context."""
    return sha256(context.encode()).hexdigest()


def skill_of(path: str, text: str) -> Skill:
    """A skill from its file: `name` and `description` of the front matter, else its folder and first line."""
    folder = path.split("/")[-2]
    found: dict[str, str] = {}
    lines = text.splitlines()
    if lines[:1] == ["---"] and "---" in lines[1:]:
        end = lines.index("---", 1)
        for line in lines[1:end]:
            key, colon, value = line.partition(":")
            if colon and key.strip() in ("name", "description"):
                found[key.strip()] = value.strip().strip("\"'")
        lines = lines[end + 1 :]
    first = next((line.lstrip("# ").strip() for line in lines if line.strip()), "")
    return Skill(path, _one_line(found.get("name") or folder)[:80], _one_line(found.get("description") or first)[:300])


def _one_line(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return " ".join(text.split())[:500]
