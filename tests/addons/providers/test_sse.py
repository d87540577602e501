"""The event parser agrees with an independent one, keeps every byte, and is bounded."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai._streaming import SSEDecoder

from addons.providers.sse import SseParser

LINES = st.lists(
    st.sampled_from(
        ["data: a", "data:b", "data", "data:  c", ": comment", "event: x", "id: 1", "retry: 5", "", "", "data: é🚀", "junk"]
    ),
    max_size=25,
)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


def parsed(data: bytes, cuts: list[int]) -> tuple[list[tuple[bytes, bytes]], bytes]:
    parser = SseParser()
    events = []
    points = sorted(min(cut, len(data)) for cut in cuts)
    for a, b in zip([0, *points], [*points, len(data)], strict=True):
        events += parser.feed(data[a:b])
    last = parser.last()
    raw = b"".join(event.raw for event in events) + (last.raw if last else b"")
    events += [last] if last else []
    return [(event.data, event.name) for event in events if event.data], raw


@settings(max_examples=300, deadline=None)
@given(LINES, ENDS, st.lists(st.integers(0, 200), max_size=6))
def test_same_events_as_the_openai_sdk(lines: list[str], end: str, cuts: list[int]) -> None:
    text = end.join([*lines, "", ""])
    reference = SSEDecoder()
    theirs = [event for line in [*text.splitlines(), ""] if (event := reference.decode(line)) is not None]

    ours, raw = parsed(text.encode(), cuts)

    assert [(event.data.encode(), (event.event or "").encode()) for event in theirs if event.data] == ours
    assert raw == text.encode()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=6))
def test_any_bytes_come_back_in_order(data: bytes, cuts: list[int]) -> None:
    assert parsed(data, cuts)[1] == data


@settings(max_examples=200, deadline=None)
@given(LINES, ENDS, st.lists(st.integers(0, 200), max_size=6))
def test_cutting_does_not_change_where_events_end(lines: list[str], end: str, cuts: list[int]) -> None:
    data = end.join([*lines, "data: z", "", "", "data: y"]).encode()

    whole = SseParser()
    expected = [event.raw for event in whole.feed(data)]
    pieces = SseParser()
    points = sorted(min(cut, len(data)) for cut in cuts)
    got = [event.raw for a, b in zip([0, *points], [*points, len(data)], strict=True) for event in pieces.feed(data[a:b])]

    assert expected == got


def test_byte_order_mark_at_the_start() -> None:
    events = SseParser().feed(b"\xef\xbb\xbfdata: a\n\n")

    assert [event.data for event in events] == [b"a"]


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_too_long_an_event_stops_the_parsing(step: int) -> None:
    parser = SseParser(max_event_bytes=1000)
    assert [event.data for event in parser.feed(b"data: ok\n\n")] == [b"ok"]
    data = b"data: " + b"x" * 5000 + b"\n\ndata: late\n\n"
    for at in range(0, len(data), step):
        assert not parser.feed(data[at : at + step]) or not parser.overflow

    assert parser.overflow
    assert len(parser.rest()) <= 1000 + step


def test_many_small_pieces_of_a_long_event_are_cheap() -> None:
    """Half a megabyte in single bytes would take minutes if each piece were searched from the start."""
    parser = SseParser()
    data = b"data: " + bytes(random.Random(1).choices(b"abc\r", k=100_000)) + b"\n\n"
    for at in range(len(data)):
        parser.feed(data[at : at + 1])

    assert parser.last() is None or parser.rest() == b""
