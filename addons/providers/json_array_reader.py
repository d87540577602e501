"""A streamed answer that is one JSON array, delivered piece by piece (Gemini without `alt=sse`)."""

import orjson

from addons.providers.json_array import JsonArrayParser
from addons.providers.readers import Findings, finished
from store.usage import Reading


class JsonArrayReader:
    """Passes the array on as it comes and reads each element as soon as it is complete."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._parser = JsonArrayParser()
        self._unread_bytes = 0
        self._unread = False
        self._elements = 0

    def feed(self, chunk: bytes) -> bytes:
        if self._parser.overflow:
            self._unread_bytes += len(chunk)
            return chunk
        before = self._parser.pending_bytes
        for element in self._parser.feed(chunk):
            self._take(element)
        if self._parser.overflow:
            self._unread = True
            self._unread_bytes += before + len(chunk)
        return chunk

    def finish(self) -> bytes:
        self._findings.ended = True
        return b""

    def reading(self) -> Reading:
        return finished(self._findings, self._unread_bytes, self._unread)

    def transcript(self, limit: int) -> str:
        return self._findings.output.transcript(limit)

    @property
    def output_bytes(self) -> int:
        """Cheap: what `reading().output_bytes` says."""
        return self._findings.output.byte_count + self._unread_bytes

    def cut(self, event: bytes, body: bytes) -> bytes:
        """What ends this answer early as an array that can be parsed; `body` is the refusal's JSON."""
        if not self._parser.between_elements:
            return b""
        return (b",\n" if self._elements else b"") + body + b"\n]"

    def _take(self, element: bytes) -> None:
        self._elements += 1
        try:
            message = orjson.loads(element)
            if type(message) is dict:
                self._findings.take_streamed(message)
        except Exception:
            # Whatever a server sends, the client gets it: what cannot be read is only a gap in the reading.
            self._unread = True
            self._unread_bytes += len(element)
