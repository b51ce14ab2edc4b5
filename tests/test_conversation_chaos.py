"""The chaos test, short (tests/chaos.py is the long one): kills everywhere, nothing lost, nothing doubled."""

from __future__ import annotations

import pytest
from chaos import Chaos


@pytest.mark.timeout(300)
def test_nothing_is_lost_or_doubled_though_everything_is_killed_now_and_then() -> None:
    chaos = Chaos(inputs=120, sessions=5, kill_every=30, seed=20_26)
    told = chaos.run()
    assert chaos.problems == [] and told["kills"]["gateway"] >= 3, told
