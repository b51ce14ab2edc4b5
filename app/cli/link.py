"""./argus link: a link that opens the page of the running gateway."""

from __future__ import annotations

from argparse import Namespace

from app import settings
from app.cli import gateway


def run(args: Namespace) -> int:
    """Prints the link and nothing else, so that it can be piped."""
    current = settings.load()
    print(gateway.ask(current, gateway.need(current, args), "POST", "/auth/link")["url"])
    return 0
