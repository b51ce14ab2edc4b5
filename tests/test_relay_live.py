"""Real clients, real gateway, the demo agent: the relay end to end."""

from __future__ import annotations

from support import Gateway


def test_a_turn_streams_to_the_client_that_asked(gateway: Gateway) -> None:
    client = gateway.client()
    assert client.hello["mode"] == "process" and client.hello["created"] and not client.hello["attached"]
    thread = client.ready()
    turn = client.turn(thread, "slow 5 0.01")
    done = client.note("turn/completed")
    assert done["turn"]["id"] == turn and done["turn"]["status"] == "completed"
    assert client.text() == "1 2 3 4 5 "
