"""Fixtures shared by all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import Gateway, running


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """One gateway with the demo agent for the tests of a file."""
    with running() as made:
        yield made


@pytest.fixture
def own_gateway() -> Iterator[Gateway]:
    """A gateway for one test that kills or changes it."""
    with running() as made:
        yield made
