"""Calls made over bare sockets: many at once, ended anywhere, with every chunk of the answer in sight."""

import asyncio
import json
import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

from tests.support.config import VIRTUAL_KEY

MODELS = {"chat": "gpt-4o-mini", "responses": "gpt-4o-mini", "messages": "claude-haiku-4-5", "gemini": "gemini-2.5-flash"}
PRICES = {"chat": (150, 600), "responses": (150, 600), "messages": (1_000, 5_000), "gemini": (300, 2_500)}
"""List prices (input, output) of these models in nano-dollars per token."""
PROVIDERS = {"chat": "openai", "responses": "openai", "messages": "anthropic", "gemini": "gemini"}
WAIT_SECONDS = 30.0


class Broken(Exception):
    """The connection ended where the answer had not."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: what `Wire.send` writes. `limit` None: the request names no output limit."""

    kind: str = "chat"
    stream: bool = False
    limit: int | None = 100
    text: str = "hello there"
    pretend: Mapping[str, object] = field(default_factory=dict)
    """Instructions to the pretend provider, `output_tokens=…`, sent as headers."""
    key: str = VIRTUAL_KEY
    array: bool = False
    """Gemini only: stream one JSON array instead of events."""
    wants_usage: bool = False
    """Chat only: ask for the usage chunk."""

    @property
    def path(self) -> str:
        if self.kind == "gemini":
            verb = "streamGenerateContent" if self.stream else "generateContent"
            query = "?alt=sse" if self.stream and not self.array else ""
            return f"/genai/v1beta/models/{MODELS[self.kind]}:{verb}{query}"
        return {"chat": "/openai/v1/chat/completions", "responses": "/openai/v1/responses", "messages": "/anthropic/v1/messages"}[
            self.kind
        ]

    def body(self) -> dict[str, Any]:
        if self.kind == "gemini":
            made: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": self.text}]}]}
            if self.limit is not None:
                made["generationConfig"] = {"maxOutputTokens": self.limit}
            return made
        made = {"model": MODELS[self.kind]}
        if self.kind == "responses":
            made["input"] = self.text
        else:
            made["messages"] = [{"role": "user", "content": self.text}]
        if self.limit is not None:
            made["max_output_tokens" if self.kind == "responses" else "max_tokens"] = self.limit
        if self.stream:
            made["stream"] = True
        if self.wants_usage:
            made["stream_options"] = {"include_usage": True}
        return made

    def to_bytes(self) -> bytes:
        body = json.dumps(self.body()).encode()
        lines = [
            f"POST {self.path} HTTP/1.1",
            "host: gateway.test",
            f"x-bf-vk: {self.key}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            *(f"x-pretend-{name.replace('_', '-')}: {value}" for name, value in self.pretend.items()),
        ]
        if self.kind == "messages":
            lines.append("anthropic-version: 2023-06-01")
        return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(slots=True)
class Answer:
    """What came back. `whole` is False when the connection ended before the answer did."""

    status: int
    headers: dict[str, str]
    chunks: list[bytes]
    whole: bool

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def refusal(self) -> str:
        """`402 budget_exceeded`; for dialects whose error types are their own, with that type."""
        body = self.json
        error = body.get("error", {})
        return f"{self.status} {body.get('type') if body.get('type') != 'error' else error.get('type')}"

    def events(self) -> list[tuple[str, Any]]:
        """(event name, data) of a stream of events; the data parsed where it is JSON."""
        found: list[tuple[str, Any]] = []
        for block in self.body.replace(b"\r\n", b"\n").split(b"\n\n"):
            name, data = "", ""
            for line in block.decode().split("\n"):
                if line.startswith("event:"):
                    name = line.removeprefix("event:").strip()
                elif line.startswith("data:"):
                    data += line.removeprefix("data:").strip()
            if name or data:
                found.append((name, json.loads(data) if data[:1] in ("{", "[") and data != "[DONE]" else data))
        return found


class Wire:
    """One client connection of the gateway: `async with Wire(gateway.url) as wire`. One exchange after the other."""

    def __init__(self, url: str, wait_seconds: float = WAIT_SECONDS) -> None:
        parts = urlsplit(url)
        self._wait_seconds = wait_seconds
        self._address = (parts.hostname or "", parts.port or 80)
        self._left: int | None = 0
        self._to_the_end = False
        self.status = 0
        self.headers: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()

    async def open(self) -> None:
        opening = asyncio.open_connection(*self._address, limit=2**22)
        self._reader, self._writer = await asyncio.wait_for(opening, self._wait_seconds)

    def leave(self, *, reset: bool = False) -> None:
        """Close the connection at once, wherever the exchange stands; `reset`: with RST instead of FIN."""
        if reset:
            self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._writer.transport.abort()
        else:
            self._writer.close()

    async def send(self, ask: Ask) -> None:
        self._writer.write(ask.to_bytes())
        await self._writer.drain()

    async def head(self) -> int:
        """Read the answer's head; its status. Raises Broken."""
        raw = await self._exactly(self._reader.readuntil(b"\r\n\r\n"))
        first, *lines = raw.decode("latin-1").split("\r\n")
        self.status = int(first.split(" ")[1])
        self.headers = {}
        for line in filter(None, lines):
            name, _, value = line.partition(":")
            self.headers[name.lower()] = value.strip()
        chunked = self.headers.get("transfer-encoding", "").lower() == "chunked"
        self._left = None if chunked else int(self.headers.get("content-length", "0"))
        self._to_the_end = not chunked and "content-length" not in self.headers and self.announced_close
        return self.status

    @property
    def announced_close(self) -> bool:
        """The gateway has said that this connection ends with this answer."""
        return self.headers.get("connection", "").lower() == "close"

    async def piece(self) -> bytes | None:
        """The next chunk of the body, None at its proper end. Raises Broken."""
        if self._to_the_end:
            return await self._exactly(self._reader.read(2**16)) or None
        if self._left is not None:
            if not self._left:
                return None
            data = await self._exactly(self._reader.readexactly(self._left))
            self._left = 0
            return data
        size = int((await self._exactly(self._reader.readuntil(b"\r\n"))).split(b";")[0], 16)
        data = await self._exactly(self._reader.readexactly(size + 2))
        if not size:
            self._left = 0
            return None
        return data[:-2]

    async def answer(self, ask: Ask) -> Answer:
        """The whole exchange. Raises Broken when not even a head came."""
        await self.send(ask)
        await self.head()
        return await self.rest()

    async def rest(self) -> Answer:
        """What is left of the answer whose head was read."""
        chunks: list[bytes] = []
        whole = True
        try:
            while (data := await self.piece()) is not None:
                chunks.append(data)
        except Broken:
            whole = False
        return Answer(self.status, self.headers, chunks, whole)

    async def ended(self) -> bool:
        """Waits until the gateway closes the connection; True when nothing came before that."""
        try:
            return await asyncio.wait_for(self._reader.read(1), self._wait_seconds) == b""
        except ConnectionError:
            return True

    async def _exactly(self, reading: Any) -> bytes:
        try:
            data: bytes = await asyncio.wait_for(reading, self._wait_seconds)
        except (asyncio.IncompleteReadError, ConnectionError) as fault:
            raise Broken(str(fault)) from None
        return data


async def one(url: str, ask: Ask) -> Answer:
    """One call on a connection of its own."""
    async with Wire(url) as wire:
        return await wire.answer(ask)


async def all_at_once(url: str, asks: Iterable[Ask]) -> list[Answer]:
    """Every call on a connection of its own; all connections are open before the first request is written."""
    asks = list(asks)
    wires = [Wire(url) for _ in asks]
    try:
        for some in range(0, len(wires), 50):  # no more at once than a listening socket may keep waiting
            await asyncio.gather(*(wire.open() for wire in wires[some : some + 50]))
        return list(await asyncio.gather(*(wire.answer(ask) for wire, ask in zip(wires, asks, strict=True))))
    finally:
        for wire in wires:
            wire.leave()


def cost_of(kind: str, usage: dict[str, int]) -> int:
    """Nano-dollars of plain input and output at list price."""
    input_price, output_price = PRICES[kind]
    return usage["input_tokens"] * input_price + usage["output_tokens"] * output_price


def dearest(lines: Sequence[dict[str, Any]]) -> int:
    """The cost of the dearest call on a bill."""
    return max(int(line["cost_nanos"]) for line in lines)
