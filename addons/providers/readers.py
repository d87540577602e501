"""The two kinds of answer every dialect knows: one JSON body, or a stream of server-sent events."""

from typing import Any

import orjson

from addons.providers.counters import utf8_length
from addons.providers.sse import MAX_EVENT_BYTES, Event, SseParser
from store.usage import Reading

MAX_BODY_BYTES = 64 * 1024 * 1024
"""A buffered answer longer than this is passed on without being read."""
MAX_TRANSCRIPT_CHARACTERS = 200_000


class Output:
    """What the answer said: counted in bytes, and kept as text up to a bound."""

    __slots__ = ("byte_count", "events", "_pieces", "_room")

    def __init__(self) -> None:
        self.byte_count = 0
        self.events = 0
        """Objects of a stream that brought output."""
        self._pieces: list[str] = []
        self._room = MAX_TRANSCRIPT_CHARACTERS

    def text(self, value: object) -> None:
        """Visible text: counted and kept."""
        if type(value) is str and value:
            self.byte_count += len(value) if value.isascii() else utf8_length(value)
            if self._room > 0:
                piece = value[: self._room]
                self._pieces.append(piece)
                self._room -= len(piece)

    def hidden(self, value: object) -> None:
        """Output that is paid for but is not part of the text: reasoning, tool arguments, names; any JSON value."""
        if type(value) is str:
            self.byte_count += utf8_length(value)
        elif type(value) in (dict, list):
            stack: list[Any] = [value]
            while stack:
                node = stack.pop()
                if type(node) is str:
                    self.byte_count += utf8_length(node)
                elif type(node) is dict:
                    stack += node
                    stack += node.values()
                elif type(node) is list:
                    stack += node
                elif node is not None:
                    self.byte_count += len(str(node))

    def transcript(self, limit: int) -> str:
        """The text so far, at most `limit` characters."""
        if limit <= 0:
            return ""
        text = "".join(self._pieces)
        if text != (self._pieces[0] if self._pieces else ""):
            self._pieces = [text]
        return text[:limit]


class Findings:
    """What one dialect makes of the JSON objects of an answer. Subclasses must cope with any JSON."""

    def __init__(self) -> None:
        self.output = Output()
        self.ended = False
        """The answer ended regularly."""

    def take(self, message: dict[str, Any]) -> None:
        """One object of a stream."""
        raise NotImplementedError

    def take_whole(self, message: dict[str, Any]) -> None:
        """The object that a whole answer consists of; for some dialects the same as one of a stream."""
        self.take(message)

    def take_streamed(self, message: dict[str, Any]) -> None:
        """One object of a stream, noting whether it brought output."""
        before = self.output.byte_count
        self.take(message)
        if self.output.byte_count != before:
            self.output.events += 1

    def reading(self, unread_bytes: int = 0, unread: bool = False) -> Reading:
        """What is known so far. `unread_bytes` of the answer could not be understood and count as output."""
        raise NotImplementedError


class EventReader:
    """Passes a stream of events on as it comes and reads it on the side."""

    def __init__(self, findings: Findings, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._findings = findings
        self._parser = SseParser(max_event_bytes)
        self._unread_bytes = 0
        self._unread = False

    def feed(self, chunk: bytes) -> bytes:
        if self._parser.overflow:
            self._unread_bytes += len(chunk)
            return chunk
        for event in self._parser.feed(chunk):
            self._take(event)
        if self._parser.overflow:
            self._give_up()
        return chunk

    def finish(self) -> bytes:
        self._finish_reading()
        return b""

    def reading(self) -> Reading:
        return finished(self._findings, self._unread_bytes, self._unread)

    def transcript(self, limit: int) -> str:
        return self._findings.output.transcript(limit)

    def cut(self, event: bytes, body: bytes) -> bytes:
        """What ends this answer early: the dialect's error event, on a line of its own.

        A half event that the client has received already cannot be taken back; it is closed first.
        """
        return (b"\n\n" if self._parser.rest() else b"") + event

    @property
    def output_bytes(self) -> int:
        """Cheap: what `reading().output_bytes` says."""
        return self._findings.output.byte_count + self._unread_bytes

    def _take(self, event: Event) -> Any:
        """The event's JSON after it was read; None when it is no object."""
        data = event.data
        if not data:
            return None
        if data == b"[DONE]":
            self._findings.ended = True
            return None
        try:
            message = orjson.loads(data)
            if type(message) is not dict:
                return None
            self._findings.take_streamed(message)
        except orjson.JSONDecodeError:
            self._unread = True
            self._unread_bytes += len(data)
            return None
        except Exception:
            # Whatever a server sends, the client gets it: a fault of ours here is only a gap in the reading.
            self._unread = True
            self._unread_bytes += len(data)
        return message

    def _give_up(self) -> bytes:
        """An event is too long: from here on nothing is read. Returns the bytes collected for it."""
        rest = self._parser.rest()
        self._unread = True
        self._unread_bytes += len(rest)
        return rest

    def _finish_reading(self) -> Event | None:
        last = self._parser.last()
        if last is not None:
            if last.data:
                self._take(last)
            elif last.raw.lstrip()[:1] == b"{":
                self._take_body(last.raw)
        self._findings.ended = True
        return last

    def _take_body(self, body: bytes) -> None:
        """A server that was asked for a stream answered with one JSON body under a wrong content type."""
        take_whole(self._findings, body)


class BodyReader:
    """Passes one JSON body on as it comes and reads it when it is complete."""

    def __init__(self, findings: Findings, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._findings = findings
        self._max_body_bytes = max_body_bytes
        self._body = bytearray()
        self._length = 0
        self._tried = 0
        self._read = False
        self._unread = False

    def feed(self, chunk: bytes) -> bytes:
        self._length += len(chunk)
        if not self._unread:
            self._body += chunk
            if self._length > self._max_body_bytes:
                self._body = bytearray()
                self._unread = True
        return chunk

    def finish(self) -> bytes:
        self._read_body()
        self._findings.ended = True
        return b""

    def reading(self) -> Reading:
        self._read_body()
        return finished(self._findings, 0 if self._read else self._length, self._unread)

    def transcript(self, limit: int) -> str:
        self._read_body()
        return self._findings.output.transcript(limit)

    def cut(self, event: bytes, body: bytes) -> bytes:
        """Nothing can be put behind half a JSON body."""
        return b""

    @property
    def output_bytes(self) -> int:
        """Cheap: the bytes so far, or the output in them once the body was read."""
        return self._findings.output.byte_count if self._read else self._length

    def _read_body(self) -> None:
        """Read the body if it is complete by now; the connection may break right behind it."""
        if self._read or self._unread or self._tried == self._length:
            return
        self._tried = self._length
        if bytes(self._body[-64:]).rstrip()[-1:] in (b"}", b"]") and take_whole(self._findings, self._body):
            self._read = True
            self._body = bytearray()


def take_whole(findings: Findings, body: bytes | bytearray) -> bool:
    """Hand a complete body to the findings; False when it is not one JSON object."""
    try:
        message = orjson.loads(body)
        if type(message) is list and len(message) == 1:
            message = message[0]  # Gemini wraps errors of streams so
        if type(message) is not dict:
            return False
        findings.take_whole(message)
    except Exception:
        return False
    return True


def finished(findings: Findings, unread_bytes: int, unread: bool) -> Reading:
    """The findings' reading; whatever goes wrong, at least the output is counted."""
    try:
        return findings.reading(unread_bytes, unread)
    except Exception:
        return Reading(output_bytes=findings.output.byte_count + unread_bytes, unread=True)


def is_event_stream(content_type: str, stream_asked: bool) -> bool:
    """Whether an answer of this type is a stream of events; a missing or strange type goes by what was asked for."""
    kind = content_type.lower()
    if "event-stream" in kind:
        return True
    return stream_asked and "json" not in kind


def error_text(value: object) -> str | None:
    """What a provider says went wrong, from any of the shapes an `error` member has; None when there is no error."""
    if value is None or value is False or value == {}:
        return None
    if type(value) is dict:
        for key in ("message", "detail", "code", "type", "status"):
            found = value.get(key)
            if type(found) is str and found:
                return found[:2000]
        return "the provider reported an error"
    return str(value)[:2000] if type(value) is str else "the provider reported an error"
