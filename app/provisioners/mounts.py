"""Extra mounts of a session, against the folders that the operator allows."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from app.errors import BadRequest

MAX_MOUNTS = 16
TARGETS = ("/mnt", "/media", "/data", "/srv", "/opt", "/home", "/root/.argus/workspace")
WORKSPACE = PurePosixPath("/workspace")


def resolve(mounts: list[dict[str, Any]], allowed: tuple[Path, ...]) -> list[dict[str, Any]]:
    """Mounts as they are stored and made: sources without a link on the way, targets as the container has them.

    Each is {"source", "target", "readOnly"?}. Raises BadRequest with what is wrong and what is allowed.
    """
    if len(mounts) > MAX_MOUNTS:
        raise BadRequest(f"a session may have {MAX_MOUNTS} mounts")
    made = [
        {"source": _source(m["source"], allowed), "target": _target(m["target"]), "readOnly": m.get("readOnly", True)}
        for m in mounts
    ]
    targets = [m["target"] for m in made]
    if len(set(targets)) < len(targets):
        raise BadRequest("two mounts have the same target")
    return made


def check_mounts(mounts: list[dict[str, Any]], allowed: tuple[Path, ...], home: Path, engine: str) -> None:
    """Again before each start: what was allowed then must be allowed now, and lead to the same place.

    Raises BadRequest. Never the gateway's own home nor the engine's socket: they would open every door.
    """
    forbidden = [home.resolve(), Path(engine.removeprefix("unix://")).resolve()]
    for mount in resolve(mounts, allowed):
        source = Path(mount["source"])
        if mount not in mounts:
            raise BadRequest(f"{mount['source']} leads elsewhere than when the session was made")
        for path in forbidden:
            if source.is_relative_to(path) or path.is_relative_to(source):
                raise BadRequest(f"{source} can't be mounted: the gateway's own files or Docker's socket are in it")


def _source(text: str, allowed: tuple[Path, ...]) -> str:
    if not allowed:
        raise BadRequest("mounts are switched off: the operator allows folders with ARGUS_RUNTIME_MOUNT_ALLOW")
    path = Path(text)
    if not path.is_absolute() or "\0" in text:
        raise BadRequest(f"the source {text[:200]!r} must be an absolute path of the host")
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):
        raise BadRequest(f"the source {text[:200]} does not exist where the gateway runs") from None
    roots = [root.resolve() for root in allowed]
    if not any(real.is_relative_to(root) for root in roots):
        shown = ", ".join(str(root) for root in allowed)
        raise BadRequest(f"the source {text[:200]} is not in a folder that may be mounted ({shown})")
    return str(real)


def _target(text: str) -> str:
    path = PurePosixPath(text)
    if path.is_relative_to(WORKSPACE):
        path = PurePosixPath("/root/.argus/workspace") / path.relative_to(WORKSPACE)
    inside = [root for root in TARGETS if path.is_relative_to(root) and str(path) != root]
    if not path.is_absolute() or ".." in path.parts or not text.isprintable() or len(text) > 1000 or not inside:
        raise BadRequest(f"the target {text[:200]!r} must be below one of {', '.join((*TARGETS[:-1], '/workspace'))}")
    return str(path)
