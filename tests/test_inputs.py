"""Rows of inputs and their lanes in the store, whatever the clock does and in any order of events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.services.conversation.states import INPUT, after, before
from app.store import approvals, inputs, sessions, usage
from app.store.database import Store, open_store
from app.store.sessions import SessionRow


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    path: Path = tmp_path_factory.mktemp("store") / "argus.db"
    opened = open_store(f"sqlite:///{path}")
    for id in ("s", "other"):
        row = SessionRow(id, "demo", "", "o", "process", "", None, "x", "created", "", None, 1, 1)
        opened.run(lambda db, row=row: sessions.add(db, row))
    yield opened
    opened.close()


def values(id: str, lane: str = "main", **more: Any) -> dict[str, Any]:
    given = {"id": id, "session_id": "s", "lane": lane, "kind": "user", "owner": "o", "text": id, "mode": "queue"}
    return {**given, "state": "queued", "message_id": id, "accepted_at_ms": 5, **more}


def test_order_is_that_of_accepting_though_the_clock_jumps_back(store: Store) -> None:
    for n, at in enumerate((900, 100, 500)):
        store.run(lambda db, n=n, at=at: inputs.add(db, values(f"clock-{n}", "clock", accepted_at_ms=at)))
    rows = store.run(lambda db: inputs.next_queued(db, "s", "clock", 9))
    assert [row.id for row in rows] == ["clock-0", "clock-1", "clock-2"]


def test_what_goes_ahead_is_next(store: Store) -> None:
    store.run(lambda db: inputs.add(db, values("later", "ahead")))
    store.run(lambda db: inputs.add(db, values("sooner", "ahead", ahead=1)))
    assert store.run(lambda db: inputs.next_queued(db, "s", "ahead", 1))[0].id == "sooner"


def test_the_same_key_of_one_session_is_one_input_and_of_another_is_another(store: Store) -> None:
    first = store.run(lambda db: inputs.add(db, values("k1", "keys", dedupe="k")))
    again = store.run(lambda db: inputs.add(db, values("k2", "keys", dedupe="k")))
    other = store.run(lambda db: inputs.add(db, values("k3", "keys", dedupe="k", session_id="other")))
    assert (first.id, again.id, other.id) == ("k1", "k1", "k3")


def test_what_may_be_with_the_agent_is_all_that_started_and_whose_message_it_has(store: Store) -> None:
    for id, state in (("u1", "started"), ("u2", "queued"), ("u3", "queued"), ("u4", "answered")):
        store.run(lambda db, id=id, state=state: inputs.add(db, values(id, "cut", state=state)))
    rows = store.run(lambda db: inputs.unsettled(db, "s", "cut", {"u3", "u4", "foreign"}))
    assert [row.id for row in rows] == ["u1", "u3"]
    many = {f"other-{n}" for n in range(300_000)}  # more than a statement may have parameters
    assert [row.id for row in store.run(lambda db: inputs.unsettled(db, "s", "cut", many))] == ["u1"]
    store.run(lambda db: inputs.merge(db, ["u2", "u3"], "u2"))
    assert [row.id for row in store.run(lambda db: inputs.unsettled(db, "s", "cut", {"u2"}))] == ["u1", "u2", "u3"]


def test_open_lanes_are_counted(store: Store) -> None:
    found = {(session, lane): n for session, lane, n in store.run(inputs.open_lanes)}
    assert found["s", "cut"] == 3 and found["s", "ahead"] == 2


def test_the_main_thread_is_one_and_a_new_one_takes_its_place(store: Store) -> None:
    assert store.run(lambda db: inputs.main_thread(db, "s")) is None
    for thread in ("t1", "t2"):
        store.run(lambda db, thread=thread: sessions.set_main_thread(db, "s", thread, 1))
    store.run(lambda db: sessions.know_threads(db, {("s", "t1"): None}, set(), 9))
    assert store.run(lambda db: inputs.main_thread(db, "s")) == "t2"
    assert store.run(lambda db: inputs.session_of_thread(db, "t1")) == ["s"]


def test_usage_that_is_folded_once_more_takes_nothing_back(store: Store) -> None:
    counts = dict.fromkeys(usage.COUNTS, 10)
    row = {"session_id": "s", "turn_id": "u", "thread_id": "t", "at_ms": 1}
    store.run(lambda db: usage.note(db, [{**row, **counts}]))
    store.run(
        lambda db: usage.note(db, [{**row, **dict.fromkeys(usage.COUNTS, 4)}, {**row, **counts, "session_id": "gone"}])
    )
    (told,) = store.run(lambda db: usage.sums(db, None, 0))
    assert (told["turns"], told["total_tokens"]) == (1, 10)


def test_a_question_is_stored_once_and_closed_once(store: Store) -> None:
    row = {"session_id": "s", "thread_id": "t", "turn_id": "u", "request": "0", "method": "m", "params": "{}"}
    row |= {"state": "open", "asked_at_ms": 1, "expires_at_ms": 2}
    first = store.run(lambda db: approvals.add(db, id="a1", **row))
    again = store.run(lambda db: approvals.add(db, id="a2", **{**row, "expires_at_ms": 99}))
    assert (first.id, again.id, again.expires_at_ms) == ("a1", "a1", 2)
    assert store.run(lambda db: approvals.close(db, "a1", "expired"))
    assert not store.run(lambda db: approvals.close(db, "a1", "answered"))


@settings(deadline=None, derandomize=True, database=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from([event for _, event in INPUT]), max_size=8), st.uuids())
def test_a_row_follows_the_table_of_states_and_ends_once(store: Store, events: list[str], uuid: Any) -> None:
    id, state = str(uuid), "queued"
    store.run(lambda db: inputs.add(db, values(id, "states", dedupe=None)) if inputs.get(db, id) is None else None)
    store.run(lambda db: inputs.move(db, id, {s for s, _ in INPUT} | set(INPUT.values()), "queued"))
    for event in events:
        moved = store.run(lambda db, event=event: inputs.move(db, id, before(event), after(event)))
        assert moved is (state in before(event))
        state = after(event) if moved else state
    assert store.run(lambda db: inputs.get(db, id)).state == state
