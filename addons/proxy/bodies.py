"""A reader of chunked bodies that tolerates trailers and does not buffer framing without bound."""

import h11
from h11._readers import ChunkedReader
from h11._receivebuffer import ReceiveBuffer
from mitmproxy.proxy.layers.http import _http1

MAX_FRAMING_BYTES = 64 * 1024
"""A chunk header, or all trailers together, longer than this is an attack."""


class BoundedChunkedReader(ChunkedReader):
    """h11's reader, whose trailers are dropped: mitmproxy's HTTP/1 layer raises on them and the exchange hangs."""

    def __call__(self, buf: ReceiveBuffer) -> h11.Data | h11.EndOfMessage | None:
        event = super().__call__(buf)
        if event is None and len(buf) > MAX_FRAMING_BYTES:
            raise h11.RemoteProtocolError("chunk header or trailers too long")
        if isinstance(event, h11.EndOfMessage) and event.headers:
            return h11.EndOfMessage()
        return event


def make_body_reader(expected_size: int | None) -> _http1.TBodyReader:
    """Stands in for mitmproxy's function of the same name: None is chunked, -1 until the connection closes, else bytes."""
    return BoundedChunkedReader() if expected_size is None else _stock_make_body_reader(expected_size)


_stock_make_body_reader = _http1.make_body_reader
