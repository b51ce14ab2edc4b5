"""What a client may send, and what of it the gateway changes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from relay_kit import STEADY

from app.errors import RPC_INVALID, RPC_PARSE
from app.relay.adapt import Traits, adapt, map_path
from app.relay.inbound import BadFrame, encode, parse, top_level


def refused(data: bytes) -> BadFrame:
    with pytest.raises(BadFrame) as caught:
        parse(data)
    return caught.value


def param(value: bytes) -> bytes:
    return b'{"method":"m","id":1,"params":{"x":%s}}' % value


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    """A frame that nests this deep; the frame itself is the first level."""
    return (
        b'{"id":1,"method":"m","params":'
        + opening * (depth - 1)
        + b"1" * (b":" in opening)
        + closing * (depth - 1)
        + b"}"
    )


def test_a_request_is_read() -> None:
    frame = parse(b'{"method":"turn/start","id":7,"params":{"threadId":"t"}}')
    assert (frame.method, frame.id, frame.params) == ("turn/start", b"7", {"threadId": "t"})


@pytest.mark.parametrize(
    "id",
    [b"0", b"-1", b"1.50", b"1e3", b"12345678901234567890123456789012345678901234567890", b"null", b"true", b'""']
    + [b'"0"', b'"a\\u0062\\/\\n"', '"é漢🧑"'.encode(), b'"\\ud83e\\uddd1"'],
)
def test_an_id_is_kept_to_the_byte(id: bytes) -> None:
    frame = parse(b'{"method":"m", "id" : %s , "params":{}}' % id)
    assert frame.id == id and top_level(encode(frame.raw))["id"] == id


@pytest.mark.parametrize("id", [b"{}", b"[1]", b'{"a":1}', b"[]"])
def test_an_id_that_is_an_object_or_array_is_refused(id: bytes) -> None:
    assert refused(b'{"method":"m","id":%s}' % id).code == RPC_INVALID


def test_what_is_kept_of_a_request_that_waits_has_a_bound() -> None:
    assert parse(b'{"id":"%s","method":"%s"}' % (b"x" * 1022, b"m" * 256)).id == b'"%s"' % (b"x" * 1022)
    assert "may have 1024 bytes" in str(refused(b'{"id":"%s","method":"m"}' % (b"x" * 1023)))
    long = refused(b'{"id":7,"method":"%s"}' % (b"m" * 257))
    assert (long.code, long.id) == (RPC_INVALID, b"7") and "256 characters" in str(long)
    assert parse(b'{"id":"%s","result":{}}' % (b"x" * 5000))  # the agent chose that id


@pytest.mark.parametrize(
    "data",
    [b"", b" ", b"{", b"hello", b'{"method":"m",}', b"{'method':'m'}", b'{"method":"m"} {}', b'{"method":"m"}\x00'],
)
def test_what_is_not_json_is_refused(data: bytes) -> None:
    bad = refused(data)
    assert (bad.code, bad.id) == (RPC_PARSE, b"null") and bad.text


@pytest.mark.parametrize("data", [b"[]", b'[{"method":"m","id":1}]', b"1", b'"m"', b"null", b"true", b"1.5"])
def test_what_is_json_but_no_object_is_refused(data: bytes) -> None:
    assert refused(data).code == RPC_INVALID


def test_a_byte_order_mark_is_refused() -> None:
    assert refused(b'\xef\xbb\xbf{"method":"m"}').code == RPC_PARSE


@pytest.mark.parametrize("bad", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe6\xbc"])
def test_invalid_utf8_is_refused_wherever_it_stands(bad: bytes) -> None:
    assert refused(param(b'"%s"' % bad)).code == RPC_PARSE
    assert refused(b'{"method":"m","%s":1}' % bad).code == RPC_PARSE
    assert refused(b'{"method":"m","id":"%s"}' % bad).code == RPC_PARSE
    assert refused(b'{"method":"m"}%s' % bad).code == RPC_PARSE


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_a_line_end_inside_a_frame_is_refused(end: bytes) -> None:
    assert refused(b'{"method":"m",%s"id":1}' % end).code == RPC_PARSE
    assert refused(param(b'[%s{"method":"bridge/restart"}]' % end)).code == RPC_PARSE
    assert refused(b'{"method":"m"}%s{"method":"bridge/restart"}' % end).code == RPC_PARSE
    assert refused(param(b'"a%sb"' % end)).code == RPC_PARSE


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b" \n", b"\n\n"])
def test_a_line_end_behind_a_frame_is_allowed_and_not_passed_on(end: bytes) -> None:
    assert encode(parse(b'{"method":"m"}' + end).raw) == b'{"method":"m"}'


def test_line_separators_of_unicode_are_ordinary_characters() -> None:
    text = '"\u2028\u2029\u0085"'.encode()
    assert text in encode(parse(param(text)).raw)


@pytest.mark.parametrize("shape", [(b"[", b"]"), (b'{"a":', b"}")])
def test_a_frame_may_nest_100_deep_and_not_deeper(shape: tuple[bytes, bytes]) -> None:
    assert parse(nested(100, *shape)).method == "m"
    assert parse(nested(100, *shape)[:-1] + b',"more":[[],{}]}').method == "m"
    for depth in (101, 127, 200, 900, 10_000, 900_000):
        bad = refused(nested(depth, *shape))
        assert bad.code == RPC_PARSE and "deeper than 100" in bad.text


@pytest.mark.parametrize("filling", [b"1,", b"[],", b'{"a":1},'])
def test_a_frame_of_a_million_values_is_refused_before_it_costs_memory(filling: bytes) -> None:
    bad = refused(param(b"[" + filling * 1_000_001 + b"1]"))
    assert bad.code == RPC_INVALID and "more than 1000000 values" in bad.text


def test_brackets_side_by_side_or_in_text_are_not_depth() -> None:
    assert parse(param(b"[" + b",".join([b"[]"] * 500) + b"]")).method == "m"
    assert parse(param(b'"' + b"[{" * 500 + b'"')).method == "m"


def test_of_keys_that_come_twice_only_the_last_counts_and_is_passed_on() -> None:
    frame = parse(b'{"id":1,"method":"ok","id":2,"method":"bridge/restart"}')
    assert (frame.id, frame.method) == (b"2", "bridge/restart")
    assert json.loads(encode(frame.raw), object_pairs_hook=list) == [("id", 2), ("method", "bridge/restart")]


def test_a_key_written_with_escapes_is_the_same_key() -> None:
    frame = parse(b'{"met\\u0068od":"bridge/restart","\\u0069d":3}')
    assert (frame.method, frame.id) == ("bridge/restart", b"3")
    assert encode(frame.raw) == b'{"method":"bridge/restart","id":3}'


@pytest.mark.parametrize("text", [b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\ud800x"', b'"\\ud800\\u0041"'])
def test_lone_surrogates_are_refused(text: bytes) -> None:
    assert refused(param(text)).code == RPC_PARSE
    assert refused(b'{"method":"m",%s:1}' % text).code == RPC_PARSE


@pytest.mark.parametrize("text", [b"NaN", b"Infinity", b"-Infinity", b"1e400", b"01", b"+1", b"1.", b".5", b"0x1"])
def test_numbers_that_json_does_not_have_are_refused(text: bytes) -> None:
    assert refused(param(text)).code == RPC_PARSE


@pytest.mark.parametrize("text", [b'"\x00"', b'"\x01"', b'"\t"', b'"\x1f"', b'"\\x41"', b'"\\u12"'])
def test_control_characters_and_unknown_escapes_are_refused(text: bytes) -> None:
    assert refused(param(text)).code == RPC_PARSE


@pytest.mark.parametrize(
    "value",
    [
        b"123456789012345678901234567890",
        b"-0",
        b"1.10",
        b"1E5",
        b'"\\u0041\\/"',
        b'{"b" : 1,  "a":2}',
        b"0." + b"1" * 400,
    ],
)
def test_values_are_passed_on_to_the_byte(value: bytes) -> None:
    assert encode(parse(param(value)).raw) == param(value)


def test_a_number_of_thousands_of_digits_is_refused_without_a_crash() -> None:
    assert refused(param(b"1" * 5000)).code == RPC_PARSE
    assert refused(b'{"method":"m","id":%s}' % (b"1" * 5000)).code == RPC_PARSE


@pytest.mark.parametrize(
    "data", [b"{}", b'{"id":1}', b'{"params":{}}', b'{"result":1}', b'{"error":{}}', b'{"method":null,"id":1}']
)
def test_an_object_that_is_no_request_answer_or_notification_is_refused(data: bytes) -> None:
    assert refused(data).code == RPC_INVALID


def test_what_was_wrong_is_said_under_the_requests_id_where_that_can_be_read() -> None:
    assert refused(b'{"id":"a\\u0062","method":5}').id == b'"a\\u0062"'
    assert refused(b'{"id":4}').id == b"4"
    assert refused(nested(101)).id == b"1"


@pytest.mark.parametrize("body", [b'"result":null', b'"result":{"decision":"accept"}', b'"error":{"code":1}'])
def test_an_answer_is_read(body: bytes) -> None:
    frame = parse(b'{"id":"0",%s}' % body)
    assert (frame.method, frame.id) == (None, b'"0"')


@pytest.mark.parametrize("params", [b"null", b"[1]", b'"x"', b"5"])
def test_params_that_are_no_object_count_as_empty_and_are_passed_on(params: bytes) -> None:
    data = b'{"method":"m","params":%s}' % params
    assert parse(data).params == {} and encode(parse(data).raw) == data


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@STEADY
@given(st.dictionaries(st.text(max_size=4), json_values, max_size=3), st.booleans())
def test_every_object_of_json_goes_through_unchanged(more: dict[str, Any], ascii_only: bool) -> None:
    message = {**more, "method": "m"}
    message.pop("id", None)
    text = json.dumps(message, ensure_ascii=ascii_only)
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return
    assert json.loads(encode(parse(data).raw)) == message


@STEADY
@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,0\\u d8method\r\n', max_size=40).map(str.encode))
def test_any_bytes_are_read_or_refused_and_what_is_read_is_one_line(data: bytes) -> None:
    try:
        frame = parse(data)
    except BadFrame:
        return
    assert b"\n" not in encode(frame.raw) and b"\r" not in encode(frame.raw)


# -- what is changed for a runtime

HERE = Traits(workspace="/home/me/ws")
CONTAINED = Traits(contained=True)


@pytest.mark.parametrize(
    ("path", "mapped"),
    [
        ("/workspace", "/home/me/ws"),
        ("/workspace/a/b", "/home/me/ws/a/b"),
        ("/root/.argus/workspace", "/home/me/ws"),
        ("/root/.argus/workspace/x", "/home/me/ws/x"),
        ("/workspaces", "/workspaces"),
        ("/root/.argus", "/root/.argus"),
        ("/root/.argus/workspace2", "/root/.argus/workspace2"),
        ("workspace/a", "workspace/a"),
        ("", ""),
    ],
)
def test_a_containers_workspace_path_becomes_the_sessions(path: str, mapped: str) -> None:
    assert map_path(path, "/home/me/ws") == mapped


@pytest.mark.parametrize("method", ["thread/start", "thread/resume", "turn/start", "command/exec", "thread/list"])
def test_cwd_is_mapped_where_the_workspace_is_elsewhere(method: str) -> None:
    assert adapt(method, {"cwd": "/workspace/x", "other": 1}, HERE) == {"cwd": "/home/me/ws/x"}
    assert adapt(method, {"cwd": "/workspace/x"}, Traits()) == {}
    assert adapt(method, {"cwd": "/elsewhere"}, HERE) == {}
    assert adapt(method, {"cwd": ["/workspace"]}, HERE) == {}
    assert adapt(method, {}, HERE) == {}


def test_cwd_of_other_methods_is_left_alone() -> None:
    assert adapt("config/read", {"cwd": "/workspace"}, HERE) == {}


@pytest.mark.parametrize("method", ["thread/start", "thread/resume", "thread/fork"])
@pytest.mark.parametrize("sandbox", ["read-only", "workspace-write", 5, ["x"]])
def test_in_a_container_a_threads_sandbox_becomes_full_access(method: str, sandbox: Any) -> None:
    assert adapt(method, {"sandbox": sandbox}, CONTAINED) == {"sandbox": "danger-full-access"}


def test_in_a_container_a_turns_sandbox_becomes_full_access() -> None:
    for policy in ({"type": "readOnly"}, {"type": "externalSandbox", "networkAccess": "enabled"}, "x"):
        changed = adapt("turn/start", {"sandboxPolicy": policy, "approvalPolicy": "untrusted"}, CONTAINED)
        assert changed == {"sandboxPolicy": {"type": "dangerFullAccess"}}


def test_a_sandbox_that_was_not_asked_for_is_not_added_and_approvals_stay() -> None:
    for method in ("thread/start", "turn/start"):
        params = {"sandbox": None, "sandboxPolicy": None, "approvalPolicy": "on-request"}
        assert adapt(method, params, CONTAINED) == adapt(method, {}, CONTAINED) == {}


def test_outside_a_container_the_sandbox_stays() -> None:
    assert adapt("thread/start", {"sandbox": "read-only"}, HERE) == {}
    assert adapt("turn/start", {"sandboxPolicy": {"type": "readOnly"}}, HERE) == {}
