"""The table of settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.errors import StartRefused
from app.settings import Settings, inherited_environment, load, table, unknown


def test_defaults_are_allowed_values() -> None:
    settings = load({})
    assert settings.port == 8080 and settings.home == Path.home() / ".argus"
    assert settings.database_url.endswith("/.argus/gateway/argus.db")


def test_every_row_has_name_kind_default_and_help() -> None:
    for row in table():
        assert row.metadata["name"].startswith(("ARGUS_", "DOCKER_HOST")) and len(row.metadata["help"]) > 20
        row.metadata["kind"].parse(row.metadata["default"])
    assert len({row.metadata["name"] for row in table()}) == len(table())


def test_an_empty_variable_counts_as_unset() -> None:
    assert load({"ARGUS_PORT": "", "ARGUS_AGENT": ""}) == load({})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ARGUS_PORT", "70000"),
        ("ARGUS_PORT", "eighty"),
        ("ARGUS_HOME_HOST_PATH", "relative/path"),
        ("ARGUS_AGENT", "gpt"),
        ("ARGUS_AUTH", "no"),
        ("ARGUS_PROVISION_MODE", "swarm"),
        ("ARGUS_CONNECT_TIMEOUT_S", "0"),
        ("ARGUS_CONNECT_TIMEOUT_S", "nan"),
        ("ARGUS_JSONL_LINE_LIMIT_BYTES", "12"),
        ("ARGUS_UPSTREAMS_JSON", "[]"),
        ("ARGUS_UPSTREAMS_JSON", '{"a": 7}'),
        ("ARGUS_UPSTREAMS_JSON", '{"a": {"port": "x"}}'),
        ("ARGUS_UPSTREAMS_JSON", '{"a": {"bridge": true}}'),
        ("ARGUS_UPSTREAMS_JSON", "{"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_with_name_and_what_is(name: str, value: str) -> None:
    with pytest.raises(StartRefused) as refused:
        load({name: value})
    assert name in refused.value.text and "it must be" in refused.value.text


def test_words_are_taken_in_any_case() -> None:
    assert load({"ARGUS_PROVISION_MODE": " Static "}).provision_mode == "static"


def test_lists_drop_blanks() -> None:
    assert load({"ARGUS_CORS_ORIGINS": "http://a, ,http://b,"}).cors_origins == ("http://a", "http://b")


def test_unknown_variables_are_named_with_the_nearest() -> None:
    said = unknown({"ARGUS_TOKN": "x", "ARGUS_ZZZZZZZZZZZ": "y", "ARGUS_TEST_REQUIRE": "z", "HOME": "/"})
    assert said == [
        "ARGUS_TOKN is no setting of this version and is ignored; did you mean ARGUS_TOKEN?",
        "ARGUS_ZZZZZZZZZZZ is no setting of this version and is ignored",
    ]


def test_a_runtime_inherits_no_secret_and_nothing_of_the_gateways() -> None:
    given = {"PATH": "/bin", "OPENAI_API_KEY": "k", "ARGUS_TOKEN": "t", "ARGUS_X": "1", "TELEGRAM_BOT_TOKEN": "b"}
    assert inherited_environment(given) == {"PATH": "/bin", "OPENAI_API_KEY": "k"}


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Settings.__setattr__(load({}), "port", 1)
