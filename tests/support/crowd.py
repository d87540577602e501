"""Clients that go on calling while the gateway is being hurt: each call asks for an output length that no other call asks for."""

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.support.config import VIRTUAL_KEY
from tests.support.traffic import Answer, Ask, Broken, Wire
from tests.support.waiting import eventually

KINDS = ("chat", "messages", "gemini", "responses")
FIRST_LENGTH = 301
WAIT_SECONDS = 90.0
"""A client is patient: a worker may be suspended for half a minute."""
CALLS_PER_CONNECTION = 5
"""Then a client opens another one, perhaps at another worker: whoever accepts first when all come at once may get nearly all."""
PAUSE_SECONDS = 0.1
"""After a refusal, or when nobody answers the door."""


@dataclass(frozen=True, slots=True)
class Heard:
    """How one call looked to its client. `status` 0: not even a head came."""

    length: int
    """The output tokens it asked for: what tells it from every other call, in the books and on the bill."""
    kind: str
    started: float
    """On the monotonic clock."""
    seconds: float
    status: int = 0
    call_id: str = ""
    whole: bool = False
    refusal: str = ""
    """The refusal's type."""
    fault: str = ""
    """The name of the exception that ended it."""
    connected: bool = True
    """False: there was nobody to connect to."""

    @property
    def good(self) -> bool:
        return self.status == 200 and self.whole


def refusal_type(answer: Answer) -> str:
    """The gateway's own word for a refusal, wherever the caller's dialect has its place."""
    error = answer.json.get("error", {})
    if "details" in error:
        return str(error["details"][0]["reason"]).lower()
    return str(error.get("code"))


class Crowd:
    """`with Crowd(lambda: gateway.url) as crowd:` — clients on a thread of their own, until the block ends.

    Half of them stream. A client whose connection dies opens another one, to wherever `url` points then.
    """

    def __init__(
        self,
        url: Callable[[], str],
        *,
        clients: int = 16,
        lengths: "itertools.count[int] | None" = None,
        delay_ms: int = 20,
        key: str = VIRTUAL_KEY,
    ) -> None:
        """`delay_ms` between the eight pieces of a stream; buffered answers take three to nine times as long."""
        self.heard: list[Heard] = []
        self._url = url
        self._clients = clients
        self._lengths = lengths if lengths is not None else itertools.count(FIRST_LENGTH)
        self._delay_ms = delay_ms
        self._key = key
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="crowd", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.leave()

    def leave(self) -> None:
        """Every client ends the call it is in, and goes."""
        self._leaving.set()
        self._thread.join(WAIT_SECONDS)
        if self._thread.is_alive():
            raise RuntimeError("a client does not come to an end")

    # -- what has been heard so far

    @property
    def good(self) -> list[Heard]:
        return [heard for heard in list(self.heard) if heard.good]

    @property
    def refused(self) -> list[Heard]:
        return [heard for heard in list(self.heard) if heard.status not in (0, 200)]

    @property
    def broken(self) -> list[Heard]:
        """Calls that began on a connection and did not end as they should."""
        return [heard for heard in list(self.heard) if heard.connected and (not heard.status or not heard.whole)]

    def wait_for_good(self, count: int, timeout_seconds: float = 30) -> float:
        """Until so many further calls that *begin from now on* have been answered well; the moment this was called."""
        now = time.monotonic()
        eventually(lambda: len([one for one in self.good if one.started >= now]), lambda found: found >= count, timeout_seconds)
        return now

    def wait_for_refused(self, count: int, timeout_seconds: float = 30) -> float:
        """The same for refusals."""
        now = time.monotonic()
        eventually(lambda: len([one for one in self.refused if one.started >= now]), lambda found: found >= count, timeout_seconds)
        return now

    # -- the clients

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(self._clients)))

    async def _client(self, client: int) -> None:
        wire: Wire | None = None
        for number in itertools.count(client):
            if self._leaving.is_set():
                break
            if wire is not None and not number % CALLS_PER_CONNECTION:
                wire.leave()
                wire = None
            ask = self._ask(client)
            started = time.monotonic()
            try:
                if wire is None:
                    wire = await self._opened()
            except (OSError, Broken) as fault:
                self._note(ask, started, fault=type(fault).__name__, connected=False)
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            wire = await self._call(wire, ask, started)
        if wire is not None:
            wire.leave()

    async def _opened(self) -> Wire:
        wire = Wire(self._url(), WAIT_SECONDS)
        await wire.open()
        return wire

    async def _call(self, wire: Wire, ask: Ask, started: float) -> Wire | None:
        """One exchange; the connection if it can be used again."""
        call_id = ""
        try:
            await wire.send(ask)
            status = await wire.head()
            call_id = wire.headers.get("x-tollgate-request-id") or wire.headers.get("x-request-id", "")
            answer = await wire.rest()
        except (OSError, Broken) as fault:
            self._note(ask, started, call_id=call_id, fault=type(fault).__name__)
            with contextlib.suppress(OSError):
                wire.leave()
            await asyncio.sleep(PAUSE_SECONDS)
            return None
        refusal = refusal_type(answer) if status != 200 and answer.whole else ""
        self._note(ask, started, status=status, call_id=call_id, whole=answer.whole, refusal=refusal)
        if status != 200:
            await asyncio.sleep(PAUSE_SECONDS)
        if answer.whole and not wire.announced_close:
            return wire
        wire.leave()
        return None

    def _note(self, ask: Ask, started: float, **fields: object) -> None:
        length = ask.limit or 0
        self.heard.append(Heard(length, ask.kind, started, time.monotonic() - started, **fields))  # type: ignore[arg-type]

    def _ask(self, client: int) -> Ask:
        length = next(self._lengths)
        kind = KINDS[client % len(KINDS)]
        stream = client // len(KINDS) % 2 == 0
        pretend: dict[str, object] = {"output_tokens": length}
        if stream:
            pretend |= {"chunk_tokens": length // 8, "chunk_delay_ms": self._delay_ms}
        else:
            pretend |= {"first_token_ms": self._delay_ms * (3 + client % 7)}
        return Ask(kind, stream=stream, limit=length, pretend=pretend, key=self._key)
