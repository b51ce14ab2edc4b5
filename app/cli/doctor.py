"""./argus doctor: looks for what keeps Argus from working, and says with each finding what mends it.

It needs no .venv, asks nothing of the network but this machine, and changes nothing: the only thing it writes is a
folder in the home, made and removed at once, to see whether sockets and locks work there.
"""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from app import VERSION, settings
from app.cli import doctor_agent, doctor_docker, doctor_home, doctor_machine
from app.cli.findings import BROKEN, INFO, WARNING, Finding
from app.errors import StartRefused
from app.settings import Settings

Check = Callable[[Settings], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    doctor_machine.python,
    doctor_machine.venv,
    doctor_home.folder,
    doctor_home.disk,
    doctor_home.sockets_and_locks,
    doctor_home.token,
    doctor_machine.running_gateway,
    doctor_machine.port,
    doctor_home.database,
    doctor_home.leftovers,
    doctor_agent.codex_program,
    doctor_agent.codex_login,
    doctor_agent.codex_config,
    doctor_docker.engine,
)


def run(args: Namespace) -> int:
    """Prints the findings; 1 if something is broken, else 0."""
    current, findings = read_settings(os.environ)
    for check in CHECKS:
        findings += examine(check, current)
    broken = [finding for finding in findings if finding.level == BROKEN]
    if args.json:
        told = {"ok": not broken, "version": VERSION, "home": str(current.home)}
        print(json.dumps({**told, "findings": [finding.__dict__ for finding in findings]}, indent=2))
    else:
        print("\n".join(report(current.home, findings)))
    return 1 if broken else 0


def examine(check: Check, current: Settings) -> list[Finding]:
    """What one check found. One that fails itself is a finding too: the others go on."""
    found = []
    try:
        for finding in check(current):
            found.append(finding)
    except Exception as error:  # whatever a machine in a strange state makes of a check
        text = f"could not be looked at: {type(error).__name__}: {error}"
        found.append(Finding(WARNING, check.__name__.replace("_", " "), text))
    return found


def read_settings(environ: Mapping[str, str]) -> tuple[Settings, list[Finding]]:
    """The settings, with the default in place of each that is not allowed, and what is wrong with them."""
    findings = []
    good = {name: text for name, text in environ.items() if not name.startswith("ARGUS_")}
    for row in settings.table():
        name = row.metadata["name"]
        if name not in environ:
            continue
        try:
            settings.load({name: environ[name]})
            good[name] = environ[name]
        except StartRefused as error:
            findings.append(Finding(BROKEN, "settings", error.text, f"unset {name}"))
    try:
        current = settings.load(good)
    except StartRefused as error:  # each is allowed, not all together
        findings.append(Finding(BROKEN, "settings", error.text, "see docs/settings.md"))
        current = settings.load({name: text for name, text in good.items() if name == "ARGUS_HOME_HOST_PATH"})
    for warning in settings.unknown(environ):
        findings.append(Finding(WARNING, "settings", warning, f"unset {warning.split()[0]}"))
    return current, findings or [Finding("ok", "settings", "all are allowed")]


def report(home: Path, findings: list[Finding]) -> list[str]:
    """The findings for a person, in the order of the checks."""
    lines = [f"Argus {VERSION}, home {home}", ""]
    for finding in findings:
        lines.append(f"{finding.level:9}{finding.what}: {finding.text}")
        if finding.mend:
            lines.append(f"{'':9}  → {finding.mend}")
    count = {level: sum(finding.level == level for finding in findings) for level in (BROKEN, WARNING, INFO)}
    told = [f"{count[BROKEN]} broken", f"{count[WARNING]} warning{'s' if count[WARNING] != 1 else ''}"]
    lines += ["", ", ".join(told) if count[BROKEN] or count[WARNING] else "nothing is wrong"]
    # A terminal of another encoding is no reason to fail.
    encoding = sys.stdout.encoding or "ascii"
    return [line.encode(encoding, "replace").decode(encoding) for line in lines]
