"""A JSON array of objects, incrementally: chunks of bytes in, each element as soon as it is complete."""

import re

MAX_ELEMENT_BYTES = 16 * 1024 * 1024

_INTERESTING = re.compile(rb'[\[\]{}"]')
_END_OF_STRING = re.compile(rb'["\\]')


class JsonArrayParser:
    """Cuts an array into the texts of its elements; a body that is a single object is one element."""

    __slots__ = ("_text", "_at", "_depth", "_in_string", "_escaped", "_start", "_inside", "_max_element_bytes", "overflow")

    def __init__(self, max_element_bytes: int = MAX_ELEMENT_BYTES) -> None:
        self._text = bytearray()
        self._at = 0
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._start = -1
        self._inside = False
        self._max_element_bytes = max_element_bytes
        self.overflow = False
        """True once an element passed the bound: nothing is parsed any more."""

    @property
    def between_elements(self) -> bool:
        """True when the array is open and no element is half received."""
        return self._inside and self._depth == 0

    @property
    def pending_bytes(self) -> int:
        """Bytes of the element that is not complete."""
        return len(self._text)

    def feed(self, chunk: bytes) -> list[bytes]:
        """The elements that this chunk completes."""
        if self.overflow:
            return []
        self._text += chunk
        elements: list[bytes] = []
        while self._step(elements):
            pass
        self._forget()
        if len(self._text) > self._max_element_bytes:
            self.overflow = True
            self._text = bytearray()
        return elements

    def _step(self, elements: list[bytes]) -> bool:
        """Advance to the next byte that matters; False at the end of what is there."""
        text = self._text
        if self._escaped:
            if self._at >= len(text):
                return False
            self._escaped = False
            self._at += 1
        pattern = _END_OF_STRING if self._in_string else _INTERESTING
        match = pattern.search(text, self._at)
        if match is None:
            self._at = len(text)
            return False
        self._at = match.end()
        self._take(match[0], elements)
        return True

    def _take(self, sign: bytes, elements: list[bytes]) -> None:
        if sign == b"\\":
            self._escaped = True
        elif sign == b'"':
            self._in_string = not self._in_string
        elif self._depth == 0 and sign == b"[" and not self._inside:
            self._inside = True
        elif sign in (b"{", b"["):
            if self._depth == 0:
                self._start = self._at - 1
            self._depth += 1
        elif self._depth > 0:
            self._depth -= 1
            if self._depth == 0:
                elements.append(bytes(self._text[self._start : self._at]))
                self._start = -1
        else:
            self._inside = False

    def _forget(self) -> None:
        keep = self._start if self._start >= 0 else self._at
        if keep:
            del self._text[:keep]
            self._at -= keep
            self._start = 0 if self._start >= 0 else -1
