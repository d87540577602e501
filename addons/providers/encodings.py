"""Content codings (gzip, deflate, br, zstd), incremental and bounded: answers read on the side, request bodies decoded."""

import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

import brotli  # type: ignore[import-untyped]
import zstandard

from addons.providers.dialect import Reader
from store.usage import Reading

ANSWER_MAX_BYTES = 512 * 1024 * 1024
"""Of one answer, decoded; what comes after is passed on unread."""
_PIECE_BYTES = 256 * 1024
_ZSTD_SLICE_BYTES = 256
"""zstandard gives back everything a slice expands to: at most 128 kB for every few bytes."""
_ZSTD_WINDOW_BYTES = 8 * 1024 * 1024
"""The largest window that `zstd` may use over HTTP (RFC 9659)."""
_MOST_CODINGS = 3


class UndecodableBody(Exception):
    """A compressed request body that cannot be read, or is too large when decoded. The text is for the caller."""

    def __init__(self, message: str, *, too_large: bool = False) -> None:
        super().__init__(message)
        self.too_large = too_large


class _Garbage(Exception):
    """The bytes are not what their coding says."""


class _Decoder(Protocol):
    def pieces(self, data: bytes) -> Iterator[bytes]:
        """The decoded bytes, in pieces of bounded size. Raises _Garbage."""
        ...

    @property
    def complete(self) -> bool:
        """True when what was fed so far ends where the coding says it ends."""
        ...


class _Zlib:
    """gzip (several members too) and deflate (with and without its header)."""

    def __init__(self, gzip: bool) -> None:
        self._gzip = gzip
        self._decoder = zlib.decompressobj(31) if gzip else None
        self._head = b""

    @property
    def complete(self) -> bool:
        return self._decoder is not None and self._decoder.eof

    def pieces(self, data: bytes) -> Iterator[bytes]:
        decoder = self._decoder
        if decoder is None:
            data = self._head + data
            if len(data) < 2:
                self._head = data
                return
            has_header = data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0
            decoder = self._decoder = zlib.decompressobj(15 if has_header else -15)
        while data:
            if decoder.eof:
                if not self._gzip or not data.strip(b"\0"):
                    return  # padding, or something behind the end that no client reads
                decoder = self._decoder = zlib.decompressobj(31)
            try:
                piece = decoder.decompress(data, _PIECE_BYTES)
            except zlib.error as fault:
                raise _Garbage(str(fault)) from None
            data = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
            if piece:
                yield piece


class _Brotli:
    def __init__(self) -> None:
        self._decoder = brotli.Decompressor()

    @property
    def complete(self) -> bool:
        return bool(self._decoder.is_finished())

    def pieces(self, data: bytes) -> Iterator[bytes]:
        decoder = self._decoder
        try:
            while not decoder.is_finished() and (data or not decoder.can_accept_more_data()):
                piece = decoder.process(data, output_buffer_limit=_PIECE_BYTES)
                data = b""
                if piece:
                    yield piece
        except brotli.error as fault:
            raise _Garbage(str(fault)) from None


class _Zstandard:
    """One frame after the other."""

    def __init__(self) -> None:
        self._decoder = self._new()

    @staticmethod
    def _new() -> "zstandard.ZstdDecompressionObj":
        return zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).decompressobj()

    @property
    def complete(self) -> bool:
        return bool(self._decoder.eof)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        try:
            for start in range(0, len(data), _ZSTD_SLICE_BYTES):
                rest = data[start : start + _ZSTD_SLICE_BYTES]
                while rest:
                    if self._decoder.eof:
                        self._decoder = self._new()
                    piece = self._decoder.decompress(rest)
                    rest = self._decoder.unused_data if self._decoder.eof else b""
                    if piece:
                        yield piece
        except zstandard.ZstdError as fault:
            raise _Garbage(str(fault)) from None


def _decoders(encoding: str) -> list[_Decoder] | None:
    """One decoder for each coding, in the order of decoding; None when one is not known or there are too many."""
    decoders: list[_Decoder] = []
    for name in reversed([word.strip().lower() for word in encoding.split(",")]):
        if name in ("", "identity"):
            continue
        if name in ("gzip", "x-gzip"):
            decoders.append(_Zlib(gzip=True))
        elif name == "deflate":
            decoders.append(_Zlib(gzip=False))
        elif name == "br":
            decoders.append(_Brotli())
        elif name == "zstd":
            decoders.append(_Zstandard())
        else:
            return None
    return decoders if len(decoders) <= _MOST_CODINGS else None


def _through(decoders: list[_Decoder], data: bytes) -> Iterator[bytes]:
    if not decoders:
        yield data
        return
    for piece in decoders[0].pieces(data):
        yield from _through(decoders[1:], piece)


def decode_body(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """A whole request body, decoded. Raises UndecodableBody for an unknown coding, garbage, or more than `max_bytes`."""
    decoders = _decoders(encoding)
    if decoders is None:
        raise UndecodableBody(f"The content encoding {encoding[:40]!r} is not known here; send gzip, deflate, br, zstd or none.")
    pieces: list[bytes] = []
    length = 0
    try:
        for piece in _through(decoders, body):
            length += len(piece)
            if length > max_bytes:
                raise UndecodableBody(f"The decompressed request body is larger than {max_bytes} bytes.", too_large=True)
            pieces.append(piece)
    except _Garbage:
        raise UndecodableBody(f"The request body is not valid {encoding[:40]}.") from None
    if not all(decoder.complete for decoder in decoders):
        raise UndecodableBody(f"The {encoding[:40]} request body is cut off.")
    return b"".join(pieces)


def decoded(reader: Reader, encoding: str) -> "DecodingReader":
    """A reader of an encoded answer: the client gets the bytes as they came, `reader` sees them decoded.

    Nothing can be taken out of an encoded answer, so what `reader` returns is not used. What cannot be decoded (unknown
    coding, garbage, beyond `ANSWER_MAX_BYTES`) is passed on, counted as output, and the reading says `unread`.
    """
    return DecodingReader(reader, encoding)


class DecodingReader:
    """See `decoded`."""

    def __init__(self, reader: Reader, encoding: str, max_bytes: int = ANSWER_MAX_BYTES) -> None:
        self._reader = reader
        decoders = _decoders(encoding)
        self._decoders = decoders or []
        self._unread = decoders is None
        self._room = max_bytes
        self._unread_bytes = 0

    def feed(self, chunk: bytes) -> bytes:
        if not self._unread:
            try:
                self._read(chunk)
            except _Garbage:
                self._unread = True
        if self._unread:
            self._unread_bytes += len(chunk)
        return chunk

    def _read(self, chunk: bytes) -> None:
        for piece in _through(self._decoders, chunk):
            self._room -= len(piece)
            if self._room < 0:
                self._unread = True
                return
            self._reader.feed(piece)

    def finish(self) -> bytes:
        self._reader.finish()
        return b""

    def reading(self) -> Reading:
        reading = self._reader.reading()
        if not self._unread:
            return reading
        return replace(reading, unread=True, output_bytes=reading.output_bytes + self._unread_bytes)

    def transcript(self, limit: int) -> str:
        return self._reader.transcript(limit)

    def cut(self, event: bytes, body: bytes) -> bytes:
        """Nothing readable can be put behind half an encoded answer."""
        return b""
