"""Orders between processes: what goes in comes out, on one line, and what is secret shows in no repr."""

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addons.process.options import ChildSpec, ServeOptions

TEXT = st.text(max_size=20)
FDS = st.lists(st.integers(0, 4096), max_size=4).map(tuple)
SPECS = st.builds(
    ChildSpec,
    role=st.sampled_from(["worker", "console"]),
    app_dir=TEXT,
    config=st.none() | TEXT,
    host=TEXT,
    port=st.integers(0, 65535),
    console_host=TEXT,
    console_port=st.integers(0, 65535),
    inspect_port=st.none() | st.integers(0, 65535),
    gateway_fds=FDS,
    listener_fds=st.lists(FDS, max_size=3).map(tuple),
    console_fds=FDS,
    inspect_fds=FDS,
    feed_fds=FDS,
    feed_port=st.integers(0, 65535),
    feed_token=TEXT,
    inspect_token=TEXT,
    grace=st.floats(0, 1e6),
    log_level=st.sampled_from(["debug", "info"]),
    mode=st.lists(TEXT, max_size=3).map(tuple),
    version=TEXT,
)


def a_spec(**fields: object) -> ChildSpec:
    plain = ChildSpec("worker", "/app", None, "127.0.0.1", 8080, "127.0.0.1", 8082, None)
    return dataclasses.replace(plain, **fields)  # type: ignore[arg-type]


@given(SPECS)
def test_orders_come_out_as_they_went_in(spec: ChildSpec) -> None:
    line = spec.to_line()
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert ChildSpec.from_line(line) == spec


def test_orders_are_plain_json() -> None:
    found = json.loads(a_spec(listener_fds=((5, 6), (7,)), mode=("socks5",), feed_token="a\nb").to_line())
    assert (found["role"], found["port"], found["listener_fds"], found["mode"]) == ("worker", 8080, [[5, 6], [7]], ["socks5"])
    assert found["feed_token"] == "a\nb"


def test_sequences_are_tuples_again() -> None:
    """A frozen value with lists in it could not be hashed, and would not equal the one that was sent."""
    spec = ChildSpec.from_line(a_spec(gateway_fds=(3, 4), listener_fds=((5,),)).to_line())
    assert hash(spec) == hash(a_spec(gateway_fds=(3, 4), listener_fds=((5,),)))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"ready\n",
        b"\xff\xfe\n",
        b"[]\n",
        b"null\n",
        b"7\n",
        b'"text"\n',
        b"{}\n",
        b'{"role": "worker"}\n',
        a_spec().to_line().replace(b'"role"', b'"rolle"'),
        a_spec().to_line().replace(b'"gateway_fds": []', b'"gateway_fds": 7'),
        a_spec().to_line()[:-20],
    ],
)
def test_anything_else_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError):
        ChildSpec.from_line(line)


def test_an_error_repeats_nothing_of_the_orders() -> None:
    line = a_spec(feed_token="feed-secret").to_line().replace(b'"role"', b'"rolle"')
    with pytest.raises(ValueError) as caught:
        ChildSpec.from_line(line)
    assert "feed-secret" not in str(caught.value)


def test_tokens_show_in_no_repr() -> None:
    spec = a_spec(feed_token="feed-secret", inspect_token="inspect-secret")
    assert "secret" not in repr(spec) and "secret" not in f"{spec}"
    assert b"feed-secret" in spec.to_line()


def test_the_defaults_of_serve_are_those_of_the_contract() -> None:
    options = ServeOptions(Path("app"))
    assert (options.host, options.console_host) == ("127.0.0.1", "127.0.0.1")
    assert (options.port, options.inspect_port, options.console_port) == (8080, 8081, 8082)
    assert (options.inspect, options.workers, options.reseed, options.grace) == (True, 1, False, 30.0)
