"""What becomes of an input after a crash: every row of the rules, and what holds in any order of events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from relay_kit import STEADY

from app.services.conversation.decide import GONE, LOST, Seen, Stored, TurnSeen, decide
from app.services.conversation.history import turns_of
from app.services.conversation.states import INPUT, INPUT_OVER, Outcome, after, before, delivered

QUEUED, STARTED = Stored("queued", "m"), Stored("started", "m", "u")


def turn(status: str, id: str = "u", messages: tuple[str, ...] = ("m",), **more) -> TurnSeen:
    return TurnSeen(id, status, messages, **more)


OTHER = turn("completed", "o", ("other",))
ROWS = {
    "no such thread": (QUEUED, Seen(None), "send"),
    "a thread without a turn": (QUEUED, Seen(()), "send"),
    "its message is in no turn": (QUEUED, Seen((OTHER,)), "send"),
    "another's turn runs": (QUEUED, Seen((turn("inProgress", "o", ("other",)),), "o"), "send"),
    "the newest turn has no items yet": (QUEUED, Seen((turn("inProgress", "o", (), items=0),), "o"), "read"),
    "an older turn has no items": (QUEUED, Seen((turn("interrupted", "o", (), items=0), OTHER)), "send"),
    "a cut turn without items is the newest": (QUEUED, Seen((turn("interrupted", "o", (), items=0),)), "send"),
    "it runs": (QUEUED, Seen((turn("inProgress"),), "u"), "wait"),
    "it is said to run, the stream does not tell": (QUEUED, Seen((turn("inProgress"),)), "wait"),
    "it is said to run, but another one does": (QUEUED, Seen((turn("inProgress"), OTHER), "o"), "interrupted"),
    "it ran": (QUEUED, Seen((turn("completed", texts=("yes",)), OTHER)), "answered"),
    "it was cut off": (QUEUED, Seen((turn("interrupted"),)), "interrupted"),
    "it failed": (QUEUED, Seen((turn("failed", error="no model"),)), "failed"),
    "started, and runs": (STARTED, Seen((turn("inProgress"),), "u"), "wait"),
    "started, and ran": (STARTED, Seen((turn("completed"),)), "answered"),
    "started, its turn known, its message not": (STARTED, Seen((turn("completed", messages=()),)), "answered"),
    "started, and cut off": (STARTED, Seen((turn("interrupted"),)), "interrupted"),
    "started, and failed": (STARTED, Seen((turn("failed"),)), "failed"),
    "started, and the agent knows nothing of it": (STARTED, Seen((OTHER,)), "interrupted"),
    "started, and the thread is gone": (STARTED, Seen(None), "interrupted"),
    "started, and the newest has no items": (STARTED, Seen((turn("inProgress", "o", (), items=0),)), "interrupted"),
    "a status nobody knows": (QUEUED, Seen((turn("strange"),)), "interrupted"),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_every_row_of_the_crash_rules(name: str) -> None:
    stored, seen, what = ROWS[name]
    assert decide(stored, seen).what == what


def test_an_action_says_which_turn_what_it_said_and_why() -> None:
    assert decide(QUEUED, Seen((turn("completed", texts=("a", "b")),))).texts == ("a", "b")
    assert decide(QUEUED, Seen((turn("failed", error="no model"),))).why == "no model"
    assert decide(STARTED, Seen(())).why == LOST and decide(QUEUED, Seen((turn("interrupted"),))).why == GONE
    assert decide(QUEUED, Seen((turn("inProgress"),))).turn == "u"


turns = st.builds(
    TurnSeen,
    st.sampled_from(["u", "v", "w"]),
    st.sampled_from(["inProgress", "completed", "interrupted", "failed", "?"]),
    st.lists(st.sampled_from(["m", "n"]), max_size=2).map(tuple),
    items=st.integers(0, 3),
)
seen = st.builds(Seen, st.none() | st.lists(turns, max_size=4).map(tuple), st.none() | st.sampled_from(["u", "v"]))


@STEADY
@given(seen, st.sampled_from(["queued", "started"]), st.none() | st.just("u"))
def test_what_the_agent_has_or_may_have_is_never_sent_again(seen: Seen, state: str, turn_id: str | None) -> None:
    action = decide(Stored(state, "m", turn_id), seen)
    has_it = any("m" in turn.messages for turn in seen.turns or ())
    if has_it or state == "started":
        assert action.what not in ("send", "read")
    if action.what in ("send", "read"):
        assert not has_it and state == "queued"


@STEADY
@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(["id", "status", "items", "type", "clientId", "text", "error", "message"]), x
            )
        ),
        max_leaves=20,
    )
)
def test_whatever_an_agent_says_of_its_turns_can_be_read(value) -> None:
    for found in turns_of(value):
        assert isinstance(found.id, str) and all(isinstance(text, str) for text in found.texts + found.messages)


def test_turns_are_read_as_codex_writes_them() -> None:
    items = [
        {"type": "userMessage", "clientId": "m", "content": []},
        {"type": "reasoning", "summary": []},
        {"type": "agentMessage", "text": "first"},
        {"type": "agentMessage", "text": "second"},
    ]
    error = {"message": "no model", "codexErrorInfo": "other"}
    assert turns_of([{"id": "u", "status": "failed", "items": items, "error": error}]) == (
        TurnSeen("u", "failed", ("m",), ("first", "second"), "no model", 4),
    )


# -- states


def test_an_input_that_is_over_stays_as_it_is() -> None:
    assert not [state for state, _ in INPUT if state in INPUT_OVER]
    assert set(INPUT.values()) == {"started", *INPUT_OVER}
    for _, event in INPUT:
        assert all(INPUT[state, event] == after(event) for state in before(event))


@STEADY
@given(st.lists(st.sampled_from([event for _, event in INPUT]), max_size=10))
def test_an_input_ends_once_whatever_happens_to_it(events: list[str]) -> None:
    state, ended = "queued", 0
    for event in events:
        if state in before(event):
            state = after(event)
            ended += state in INPUT_OVER
    assert ended <= 1 and (ended == 1) is (state in INPUT_OVER)


DELIVERIES = {
    "it arrived": (Outcome("sent"), 1, 0, ("sent", None, 0)),
    "it will never be taken": (Outcome("refused"), 1, 0, ("dead", None, 0)),
    "the first attempt may have arrived": (Outcome("unknown"), 1, 0, ("uncertain", 30_000, 1)),
    "the second may have arrived too": (Outcome("unknown"), 2, 1, ("dead", None, 2)),
    "not now": (Outcome("failed"), 1, 0, ("failed", 1_000, 0)),
    "not now, again": (Outcome("failed"), 2, 0, ("failed", 5_000, 0)),
    "not now, for the last time": (Outcome("failed"), 12, 0, ("dead", None, 0)),
    "not before a time": (Outcome("failed", retry_after_s=7), 1, 0, ("failed", 7_000, 0)),
    "not before a time in the far future": (Outcome("failed", retry_after_s=1e12), 1, 0, ("failed", 86_400_000, 0)),
    "a time in the past": (Outcome("failed", retry_after_s=-5), 1, 0, ("failed", 1_000, 0)),
}  # fmt: skip


@pytest.mark.parametrize("name", DELIVERIES)
def test_every_row_of_the_delivery_rules(name: str) -> None:
    outcome, attempts, uncertain, expected = DELIVERIES[name]
    result = delivered(outcome, attempts, uncertain)
    assert (result.state, result.wait_ms, result.uncertain) == expected


@STEADY
@given(st.lists(st.sampled_from(["sent", "unknown", "failed", "refused"]), min_size=20, max_size=20))
def test_a_delivery_ends_and_may_arrive_twice_only_if_that_was_counted(outcomes: list[str]) -> None:
    state, uncertain, arrived = "pending", 0, 0
    for attempts, kind in enumerate(outcomes, 1):
        if state in ("sent", "dead"):
            break
        arrived += kind in ("sent", "unknown")
        result = delivered(Outcome(kind), attempts, uncertain)
        state, uncertain = result.state, result.uncertain
    assert state in ("sent", "dead")
    assert max(0, arrived - 1) <= uncertain
