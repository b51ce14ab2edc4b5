"""Fixtures shared by all tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from support import Gateway, running

if TYPE_CHECKING:
    from browser import OpenTab
    from playwright.sync_api import Browser


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for the tests of a file; without one they are skipped."""
    from browser import chromium  # only these tests need Playwright

    with chromium() as made:
        yield made


@pytest.fixture
def open_tab(browser: Browser, gateway: Gateway, request: pytest.FixtureRequest) -> Iterator[OpenTab]:
    """Opens tabs at the file's gateway; see browser.tabs."""
    from browser import tabs

    with tabs(browser, gateway, request.node.name) as open_one:
        yield open_one
