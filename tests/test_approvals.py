"""What becomes of a question's row; the store is real, the session is its stream state alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent

from app.relay.fold import Fold, ServerRequest
from app.relay.frames import text_frame
from app.relay.heard import Heard
from app.relay.ring import Ring
from app.services.conversation.approvals import Approvals
from app.settings import load
from app.store import sessions
from app.store.database import open_store
from app.store.sessions import SessionRow

PATIENCE_S = 20


def until(holds: Callable[[], Any]) -> None:
    with gevent.Timeout(PATIENCE_S):
        while not holds():
            gevent.sleep(0.005)


def test_a_question_that_went_with_a_gap_in_the_stream_is_closed(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/argus.db")
    given = dict.fromkeys(("agent", "title", "owner", "provisioner", "upstream", "secret", "state", "reason"), "x")
    blank = SessionRow(id="s", **given, handle=None, initialize=None, created_at_ms=1, active_at_ms=1)
    store.run(lambda db: sessions.add(db, blank))
    request = ServerRequest(b"0", "m/requestApproval", "t", "u", b"null", text_frame(b'{"id":0,"params":{}}'))
    core = SimpleNamespace(fold=Fold(Ring(1000), requests={b"0": request}), questions=SimpleNamespace(owners={}))
    live = SimpleNamespace(live=SimpleNamespace(core=core))
    approvals = Approvals(load({}), store, SimpleNamespace(live=lambda id: live))  # type: ignore[arg-type]
    approvals.hear("s", Heard("question", "t", "u", about=request))
    until(lambda: approvals.list("s", "open"))
    core.fold.requests.clear()
    approvals.reconcile("s")
    until(lambda: [row.state for row in approvals.list("s", None)] == ["settled"])
    until(lambda: not approvals._open and not approvals._ending and not approvals._watched)
    store.close()
