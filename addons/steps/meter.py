"""The tee: every chunk of an answer is read by the dialect's reader and passed on; a provider that ignores its limit is cut."""

import logging

from addons.call import Call, State
from addons.providers.encodings import decoded
from addons.refusal import Refusal
from addons.refuse import body as refusal_body
from addons.services import Services

logger = logging.getLogger(__name__)

STREAMED_TYPES = ("text/event-stream", "application/x-ndjson", "application/jsonl", "application/stream+json")
WEB_PAGE_TYPES = ("text/html", "application/xhtml")
"""No metered endpoint answers with a web page. It is held back and told to the client as an error it can read."""
BUFFER_MAX_BYTES = 4 * 1024 * 1024
"""A buffered answer longer than this is streamed through instead: only its cost header is lost."""
BYTES_PER_TOKEN_MOST = 16
"""No text worth reading averages more bytes a token: what is seen beyond the hold at this rate is certainly beyond it."""
ERROR_EXCERPT_BYTES = 2048


def begin(call: Call, services: Services) -> None:
    """Choose the tee for an answer that has just begun: a reader for a good one, an excerpt of a bad one."""
    response = call.flow.response
    if response is None:
        return
    call.response_started = services.clock.monotonic()
    if call.dialect is None or call.facts is None:
        response.stream = True
        return
    content_type = response.headers.get("content-type", "")
    if content_type.lower().startswith(WEB_PAGE_TYPES):
        call.web_page = True
        return
    call.streaming = _is_streamed(call, content_type)
    if 200 <= response.status_code < 300:
        encoding = response.headers.get("content-encoding", "")
        reader = call.dialect.reader(call.facts, content_type, hide_usage=call.asked_usage and not _is_encoded(encoding))
        call.reader = decoded(reader, encoding) if _is_encoded(encoding) else reader
    elif not call.streaming:
        return
    if call.streaming:
        response.stream = Tee(call, services)
    call.state = State.METERED


def read_whole(call: Call) -> None:
    """Read a buffered answer that is complete. Never raises: what cannot be read must still be settled."""
    response = call.flow.response
    if call.reader is None or call.streaming or response is None or not response.raw_content:
        return
    try:
        call.reader.feed(response.raw_content)
        call.reader.finish()
    except Exception:
        _give_up(call)


def _give_up(call: Call) -> None:
    logger.exception("reading an answer failed; it is passed on unread (call %s)", call.id)
    call.reader_failed = True
    call.reader = None


def _is_encoded(encoding: str) -> bool:
    return encoding.strip().lower() not in ("", "identity")


def _is_streamed(call: Call, content_type: str) -> bool:
    response = call.flow.response
    if content_type.startswith(STREAMED_TYPES) or (call.facts is not None and call.facts.stream):
        return True
    length = response.headers.get("content-length", "") if response else ""
    return length.isdigit() and int(length) > BUFFER_MAX_BYTES


class Tee:
    """mitmproxy's stream callable. Never raises; returns bytes, or a list when nothing or an ending is to be sent."""

    __slots__ = ("_call", "_monotonic")

    def __init__(self, call: Call, services: Services) -> None:
        self._call = call
        self._monotonic = services.clock.monotonic

    def __call__(self, chunk: bytes) -> bytes | list[bytes]:
        call = self._call
        if call.cut:
            return []
        reader = call.reader
        if reader is None:
            return chunk
        try:
            if not chunk:
                return reader.finish()
            if call.first_token is None:
                call.first_token = self._monotonic()
            out = reader.feed(chunk)
            if self._beyond_hold():
                return self._end(out)
            return out or []
        except Exception:
            _give_up(call)
            return chunk

    def _beyond_hold(self) -> bool:
        """Whether the output seen is certainly more than was held (several lower bounds, none of them a guess)."""
        call = self._call
        if call.hold is None or call.free or call.bound is None or call.facts is None or not call.facts.has_output:
            return False
        held = call.output_tokens_held
        reader = call.reader
        if reader is None or held <= 0:
            return False
        reading = reader.reading()
        reported = reading.usage.output_tokens if reading.usage is not None else 0
        return max(reported, reading.output_events, reading.output_bytes // BYTES_PER_TOKEN_MOST) > held

    def _end(self, out: bytes) -> list[bytes]:
        call = self._call
        call.cut = True
        message = (
            f"The answer passed the {call.output_tokens_held} output tokens that the budget had room for and was cut;"
            f" what came was charged (request {call.id})."
        )
        refusal = Refusal(402, "budget_exceeded", message)
        body = refusal_body(refusal, call.error_dialect, call.id, {})
        event = call.dialect.error_event(refusal.type, message, body) if call.dialect is not None else b""
        # The reader knows what the client has of a half event, and what may stand behind it at all.
        ending = call.reader.cut(event, body) if call.reader is not None else event
        return call.cut_stream([out, ending])
