"""Server-sent events, incrementally: chunks of bytes in, whole events out, each with its exact bytes."""

import re
from typing import NamedTuple

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""An event longer than this is not read, nor is anything after it."""

_END_OF_EVENT = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")
_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event. `raw` is everything from the end of the event before to the blank line that ends this one, inclusive."""

    raw: bytes
    data: bytes
    """The data lines joined with line feeds; empty for comments and the like."""
    name: bytes = b""


class SseParser:
    """Cuts a byte stream into events. What it has not given back as events yet is in `rest()`."""

    __slots__ = ("_pending", "_searched", "_carriage_returns", "_first", "_max_event_bytes", "overflow")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._pending = bytearray()
        self._searched = 0
        self._carriage_returns = False
        self._first = True
        self._max_event_bytes = max_event_bytes
        self.overflow = False
        """True once an event passed the bound: nothing is parsed any more."""

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that this chunk completes."""
        if self.overflow:
            return []
        if b"\r" in chunk:
            self._carriage_returns = True
        text: bytes | bytearray = chunk
        if self._pending:
            self._pending += chunk
            text = self._pending
        events: list[Event] = []
        start = 0
        while (end := self._end_of_event(text, max(start, self._searched))) >= 0:
            events.append(self._event(bytes(text[start:end])))
            start = end
            self._searched = 0
        self._keep(text, start)
        return events

    def _end_of_event(self, text: bytes | bytearray, start: int) -> int:
        if not self._carriage_returns:
            at = text.find(b"\n\n", start)
            return at + 2 if at >= 0 else -1
        match = _END_OF_EVENT.search(text, start)
        if match is None or (match.end() == len(text) and text.endswith(b"\r")):
            return -1  # a line feed may follow, and belongs to this event
        return match.end()

    def _keep(self, text: bytes | bytearray, start: int) -> None:
        if text is self._pending:
            del self._pending[:start]
        else:
            self._pending += text[start:]
        # A line ending may be cut anywhere, so the last three bytes are looked at again.
        self._searched = max(0, len(self._pending) - 3)
        if len(self._pending) > self._max_event_bytes:
            self.overflow = True

    def rest(self) -> bytes:
        """The bytes of the event that is not complete; they are forgotten."""
        rest = bytes(self._pending)
        self._pending.clear()
        self._searched = 0
        return rest

    def last(self) -> Event | None:
        """What stands after the last blank line, read as an event: servers forget the blank line at the end."""
        if not self._pending or self.overflow:
            return None
        raw = self.rest()
        return self._event(raw)

    def _event(self, raw: bytes) -> Event:
        if self._first:
            self._first = False
            if raw.startswith(_BOM):
                return Event(raw, *_fields(raw[3:]))
        if raw.startswith(b"data: ") and raw.find(b"\n") == len(raw) - 2 and not self._carriage_returns:
            return Event(raw, raw[6:-2])
        return Event(raw, *_fields(raw))


def _fields(raw: bytes) -> tuple[bytes, bytes]:
    """The data and the name that the lines of one event add up to."""
    data: list[bytes] = []
    name = b""
    for line in raw.splitlines():
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value[1:] if value.startswith(b" ") else value)
        elif field == b"event":
            name = value.strip()
    return b"\n".join(data), name
