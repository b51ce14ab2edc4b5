"""Reads a workspace's context files and skills. What stands there was written by an agent: a link, a pipe or a huge
file must neither lead out of the workspace, nor hang the gateway, nor fill its memory.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from app.services.conversation.prompt import ContextFile, Skill, skill_of

NAMES = ("AGENTS.md", "SOUL.md", "USER.md")
SKILLS_MAX, SKILL_BYTES = 50, 8192
NO_LINK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read(workspace: Path, most_bytes: int, linked: bool = True) -> tuple[list[ContextFile], list[Skill]]:
    """The context files that there are, each cut at `most_bytes`, and the skills. Blocks: call it in a thread.

    `linked`: the workspace itself may be a link; not where an agent in a container could have put one in its place.
    """
    try:
        root = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if linked else os.O_NOFOLLOW))
    except OSError:
        return [], []
    try:
        files = [file for name in NAMES if (file := _file(root, name, most_bytes)) is not None]
        return files, _skills(root)
    finally:
        os.close(root)


def _file(folder: int, name: str, most_bytes: int) -> ContextFile | None:
    try:
        fd = os.open(name, NO_LINK, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        return ContextFile(name, problem=f"[{name} can't be read: {error.strerror}]")
    try:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode):
            return ContextFile(name, problem=f"[{name} is no file]")
        data = os.read(fd, most_bytes)  # a regular file gives all of it at once
    except OSError as error:
        return ContextFile(name, problem=f"[{name} can't be read: {error.strerror}]")
    finally:
        os.close(fd)
    return ContextFile(name, data.decode("utf-8", "ignore"), about.st_size)


def _skills(root: int) -> list[Skill]:
    found = []
    with contextlib.ExitStack() as opened:
        try:
            skills = os.open("skills", NO_LINK | os.O_DIRECTORY, dir_fd=root)
            opened.callback(os.close, skills)
            names = sorted(os.listdir(skills))[:SKILLS_MAX]
        except OSError:
            return []
        for name in names:
            with contextlib.suppress(OSError):
                folder = os.open(name, NO_LINK | os.O_DIRECTORY, dir_fd=skills)
                try:
                    file = _file(folder, "SKILL.md", SKILL_BYTES)
                finally:
                    os.close(folder)
                if file is not None and not file.problem:
                    found.append(skill_of(f"skills/{name}/SKILL.md", file.text))
    return found
