"""The pretend provider itself: routes a request to its dialect, answers (or misbehaves) as told, and bills it."""

import asyncio
import base64
from collections import deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import orjson

from addons.pretend.bill import Bill, Counts, Line
from addons.pretend.framing import BodyWriter
from addons.pretend.plan import Dialect, Json, Plan, Refused
from addons.pretend.routes import check_credential, dialect_of, free_answer, json_object, message_of, plan_of
from addons.pretend.steering import Behaviour, UnknownInstruction, instructions_of, steer
from addons.pretend.wire import BadRequest, Connection, Request, listen, response

_JSON = b"application/json"
_AT_ONCE_PIECES = 300
"""Streams with more pieces are written bit by bit, so that a caller who leaves is noticed and pays only what it got."""
_KEPT_BODY = 4 * 1024 * 1024
_HTML = (
    b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n"
    b"<hr><center>cloudflare</center>\r\n</body>\r\n</html>\r\n"
)
_EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload; as=style\r\n\r\n"


class PretendProvider:
    """A server for one event loop. `now_ms` gives Unix milliseconds."""

    def __init__(
        self,
        *,
        now_ms: Callable[[], int],
        bill_path: Path | None = None,
        defaults: Behaviour | None = None,
        keep: int = 100,
    ) -> None:
        self.bill = Bill(bill_path)
        self._now_ms = now_ms
        self._initial = self._defaults = defaults or Behaviour()
        self._requests: deque[tuple[int, Request]] = deque(maxlen=keep)
        self._seen = 0
        self._serial = 0
        self._run_id = ""
        self._in_flight = 0
        self._peak_in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._server: asyncio.Server | None = None
        self._open: set[Connection] = set()

    # -- life

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen; returns the port."""
        self._run_id = f"{self._now_ms():x}"
        self._server, self._open = await listen(self._handle, host, port)
        address: tuple[str, int] = self._server.sockets[0].getsockname()[:2]
        return address[1]

    async def stop(self) -> None:
        """Stop listening and drop every connection; calls under way are billed as they stand."""
        if self._server is not None:
            self._server.close()
            tasks = [connection.stop() for connection in list(self._open)]
            await asyncio.gather(*filter(None, tasks), return_exceptions=True)
            await self._server.wait_closed()
            self._server = None
        self.bill.release()

    def last(self, count: int = 10) -> list[Json]:
        """The last requests, oldest first: method, target, header pairs, body (base64, and text if it is UTF-8)."""
        recent = list(self._requests)[-count:] if count > 0 else []
        return [_request_as_dict(number, request) for number, request in recent]

    def status(self) -> Json:
        """Counters beside the bill."""
        return {
            "requests": self._seen,
            "in_flight": self._in_flight,
            "peak_in_flight": self._peak_in_flight,
            "open_connections": len(self._open),
        }

    async def idle(self) -> None:
        """Wait until no billed call is under way."""
        await self._idle.wait()

    def reset(self) -> None:
        """Forget bill, requests and changed defaults."""
        self.bill.reset()
        self._requests.clear()
        self._seen = 0
        self._peak_in_flight = self._in_flight
        self._defaults = self._initial

    # -- one request

    def _handle(self, request: Request, connection: Connection) -> Coroutine[Any, Any, None] | None:
        if request.path.startswith("/__"):
            connection.write(self._control(request))
            return None
        self._seen += 1
        self._requests.append((self._seen, request))
        self._serial += 1
        serial = f"{self._run_id}-{self._serial}"
        dialect = dialect_of(request.path)
        try:
            behaviour = self._behaviour(request)
            return self._dispatch(request, connection, dialect, behaviour, serial)
        except Refused as error:
            status, message, param = error.status, error.message, error.param
        except (UnknownInstruction, BadRequest) as error:
            status, message, param = 400, str(error), None
        request_id = f"req_{serial}"
        body = dialect.error(status, message, param, request_id)
        connection.write(response(status, _JSON, body, dialect.headers(request_id)))
        return None

    def _behaviour(self, request: Request) -> Behaviour:
        if b"pretend-" not in request.head.lower() and b"[[pretend " not in request.body:
            return self._defaults
        return steer(self._defaults, instructions_of(request.headers, request.decoded_body()))

    def _dispatch(
        self, request: Request, connection: Connection, dialect: Dialect, behaviour: Behaviour, serial: str
    ) -> Coroutine[Any, Any, None] | None:
        check_credential(request, dialect, behaviour)
        if behaviour.hang == "before-headers":
            return _hang()
        if behaviour.cut == "before-headers":
            if behaviour.cut_with_reset:
                connection.abort()
            else:
                connection.close()
            connection.gone = True
            return None
        if behaviour.early_hints:
            connection.write(_EARLY_HINTS)
        headers = dialect.headers(f"req_{serial}")
        if behaviour.html:
            status = behaviour.status if behaviour.status != 200 else 502
            connection.write(response(status, b"text/html; charset=UTF-8", _HTML, headers))
            return None
        if behaviour.status != 200:
            if behaviour.retry_after >= 0:
                headers += (b"retry-after: %d" % behaviour.retry_after,)
            error = dialect.error(behaviour.status, message_of(behaviour.status), None, f"req_{serial}")
            connection.write(response(behaviour.status, _JSON, error, headers))
            return None
        free = free_answer(request, behaviour)
        if free is not None:
            connection.write(response(200, _JSON, free, headers))
            return None
        plan = plan_of(request, behaviour, serial, self._now_ms() // 1000)
        return self._answer(request, connection, dialect, plan, headers)

    def _answer(
        self, request: Request, connection: Connection, dialect: Dialect, plan: Plan, headers: tuple[bytes, ...]
    ) -> Coroutine[Any, Any, None] | None:
        line = Line(plan.id, request.path, plan.model, self._now_ms(), plan.counts)
        writer = BodyWriter(connection, plan, request, dialect.content_type(plan), headers)
        behaviour = plan.behaviour
        slow = behaviour.first_token_ms > 0 or behaviour.hang or behaviour.cut or behaviour.stream_error
        if not plan.stream and not slow:
            writer.whole(dialect.buffered(plan))
            self.bill.add_finished(line)
            return None
        if plan.stream and not slow and behaviour.chunk_delay_ms <= 0:
            chunks = plan.counts.output // max(1, behaviour.chunk_tokens)
            if chunks <= _AT_ONCE_PIECES:
                writer.start()
                writer.write_all([piece.data for piece in dialect.stream(plan)])
                writer.end()
                self.bill.add_finished(line)
                return None
        return self._answer_slowly(connection, dialect, plan, line, writer)

    async def _answer_slowly(self, connection: Connection, dialect: Dialect, plan: Plan, line: Line, writer: BodyWriter) -> None:
        final = plan.counts
        line.counts = _so_far(final, 0)
        self.bill.start(line)
        self._in_flight += 1
        self._idle.clear()
        self._peak_in_flight = max(self._peak_in_flight, self._in_flight)
        outcome = "gone"
        try:
            await _pause(plan.behaviour.first_token_ms)
            if plan.stream:
                outcome = await self._stream(connection, dialect, plan, line, writer)
            else:
                outcome = await self._buffered(connection, dialect.buffered(plan), plan, line, writer)
        finally:
            self._in_flight -= 1
            if outcome == "finished":
                line.counts = final
            self.bill.close(line, outcome)
            if not self._in_flight:
                self._idle.set()

    async def _buffered(self, connection: Connection, body: bytes, plan: Plan, line: Line, writer: BodyWriter) -> str:
        behaviour = plan.behaviour
        if not behaviour.cut and not behaviour.hang:
            if connection.gone:
                return "gone"
            writer.whole(body)
            return "finished"
        line.counts = plan.counts
        writer.half(body)
        await connection.drain()
        if behaviour.hang:
            await _hang()
        await _cut(connection, behaviour)
        return "cut"

    async def _stream(self, connection: Connection, dialect: Dialect, plan: Plan, line: Line, writer: BodyWriter) -> str:
        behaviour = plan.behaviour
        final = plan.counts
        strikes_at = _strike_chunk(plan) if behaviour.hang or behaviour.cut or behaviour.stream_error else -1
        writer.start()
        texts = 0
        for number, piece in enumerate(dialect.stream(plan)):
            if piece.paced:
                if texts == strikes_at:
                    return await _strike(connection, dialect, plan, writer)
                if texts:
                    await _pause(behaviour.chunk_delay_ms)
                texts += 1
            if connection.gone:
                return "gone"
            writer.write(piece.data)
            line.counts = _so_far(final, piece.produced)
            await connection.drain()
            if number % 32 == 31:
                await asyncio.sleep(0)
        if texts <= strikes_at:
            return await _strike(connection, dialect, plan, writer)
        writer.end()
        return "finished"

    # -- control

    def _control(self, request: Request) -> bytes:
        query = parse_qs(request.query, keep_blank_values=True)
        route = (request.method, request.path)
        if route == ("GET", "/__bill"):
            return _json_answer(self.bill.as_dict(with_lines="summary" not in query) | self.status())
        if route == ("GET", "/__last"):
            return _json_answer(self.last(int(query.get("n", ["10"])[0])))
        if route == ("POST", "/__reset"):
            self.reset()
            return _json_answer({"reset": True})
        if route == ("POST", "/__default"):
            return self._change_defaults(request)
        return response(404, _JSON, b'{"error":"no such control path"}')

    def _change_defaults(self, request: Request) -> bytes:
        try:
            wanted = json_object(request.body)
            self._defaults = steer(self._initial, {key: str(value) for key, value in wanted.items()})
        except (UnknownInstruction, Refused) as error:
            return response(400, _JSON, orjson.dumps({"error": str(error)}))
        return _json_answer({"defaults": wanted})


def _so_far(final: Counts, produced: int) -> Counts:
    """The figures owed when only so many output tokens have been generated."""
    output = min(produced, final.output)
    return Counts(
        input=final.input,
        output=output,
        cache_read=final.cache_read,
        cache_write=final.cache_write,
        cache_write_1h=final.cache_write_1h,
        reasoning=min(final.reasoning, output),
        tool=final.tool,
        web_searches=final.web_searches,
    )


def _strike_chunk(plan: Plan) -> int:
    if plan.behaviour.after_chunks >= 0:
        return plan.behaviour.after_chunks
    visible = (plan.tokens_each - plan.reasoning_each) * plan.candidates
    return -(-visible // max(1, plan.behaviour.chunk_tokens)) // 2


async def _strike(connection: Connection, dialect: Dialect, plan: Plan, writer: BodyWriter) -> str:
    behaviour = plan.behaviour
    await connection.drain()
    if behaviour.hang:
        await _hang()
    if behaviour.cut:
        await _cut(connection, behaviour)
        return "cut"
    writer.write(dialect.stream_error(plan))
    writer.end()
    return "error"


async def _cut(connection: Connection, behaviour: Behaviour) -> None:
    if behaviour.cut_with_reset:
        await asyncio.sleep(0.02)  # let the kernel hand over what was written, or nothing of it would arrive
        connection.abort()
    else:
        connection.close()
    connection.gone = True


async def _hang() -> None:
    """Until the caller leaves: the connection cancels this."""
    await asyncio.get_running_loop().create_future()


async def _pause(milliseconds: float) -> None:
    if milliseconds > 0:
        await asyncio.sleep(milliseconds / 1000)


def _json_answer(value: Any) -> bytes:
    return response(200, _JSON, orjson.dumps(value))


def _request_as_dict(number: int, request: Request) -> Json:
    lines = request.head.decode("latin-1").split("\r\n")[1:]
    pairs = [line.partition(":") for line in lines]
    kept = request.body[:_KEPT_BODY]
    try:
        text: str | None = request.decoded_body()[:_KEPT_BODY].decode()
    except (UnicodeDecodeError, BadRequest):
        text = None
    return {
        "number": number,
        "method": request.method,
        "target": request.target,
        "headers": [[name, value.strip()] for name, _, value in pairs],
        "body_length": len(request.body),
        "body_base64": base64.b64encode(kept).decode(),
        "body_text": text,
    }
