"""Calls and services for tests of single steps: real snapshots, policies and price books, no sockets, no database."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from types import MappingProxyType
from typing import Any

from mitmproxy import http
from mitmproxy.test import tflow, tutils

from addons import chain
from addons.call import Call
from addons.policy import Policy
from addons.providers.registry import FAMILIES
from addons.services import Services
from addons.steps.identify import key_hash
from addons.steps.learned import Learned
from store.clock import Ids
from store.config_store.snapshot import ANY, NO_MODEL_CAPS, Provider, ProviderConfig, ProviderKey, Snapshot, VirtualKey
from store.ledger.types import Cap, CapState, Granted, HoldRequest, Refused, Scope, Settled, Settlement, Stale, Unit
from store.logs.types import CallRow
from store.prices.book import PriceBook
from store.prices.limits import LimitsBook

KEY = "sk-bf-11111111-2222-4333-8444-555555555555"
NOW_MS = 1_795_000_000_000

_BOOK = PriceBook.load()
_LIMITS = LimitsBook.load(_BOOK)


@dataclass
class FixedClock:
    """Time that moves only when told to."""

    at_ms: int = NOW_MS
    seconds: float = 1000.0

    def now_ms(self) -> int:
        return self.at_ms

    def monotonic(self) -> float:
        return self.seconds


@dataclass
class RecordingLedger:
    """Answers holds from a list of prepared answers (or grants in full) and remembers everything it was asked."""

    answers: list[Granted | Refused | Stale] = field(default_factory=list)
    holds: list[HoldRequest] = field(default_factory=list)
    settlements: list[Settlement] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    async def hold(self, request: HoldRequest) -> Granted | Refused | Stale:
        self.holds.append(request)
        return self.answers.pop(0) if self.answers else Granted(request.call_id, request.bound_nanos, False, ())

    def settle_soon(self, settlement: Settlement, done: Callable[[Settled], None] | None = None) -> None:
        self.settlements.append(settlement)

    def cancel(self, call_id: str) -> None:
        self.cancelled.append(call_id)


@dataclass
class RecordingLogs:
    """Keeps the rows."""

    rows: list[CallRow] = field(default_factory=list)

    def add(self, row: CallRow) -> None:
        self.rows.append(row)


@dataclass
class FixedSnapshots:
    """The current snapshot; `refresh` moves on to the next prepared one."""

    current: Snapshot
    following: list[Snapshot] = field(default_factory=list)

    async def look(self) -> bool:
        if self.following:
            self.current = self.following.pop(0)
            return True
        return False

    async def refresh(self, revision: int) -> None:
        if self.following:
            self.current = self.following.pop(0)


def snapshot(keys: dict[str, VirtualKey] | None = None, providers: dict[str, Provider] | None = None, **fields: Any) -> Snapshot:
    """A governance of one key that may do everything, and every known provider with one key; `keys` by value."""
    if keys is None:
        keys = {KEY: virtual_key()}
    every = {name: Provider(name, name, keys=(ProviderKey(f"{name}-1", f"{name}-main", f"secret-of-{name}"),)) for name in FAMILIES}
    return Snapshot(
        revision=fields.pop("revision", 1),
        providers=MappingProxyType(every | (providers or {})),
        virtual_keys=MappingProxyType({key.id: key for key in keys.values()}),
        by_hash=MappingProxyType({key_hash(value): key for value, key in keys.items()}),
        model_caps=fields.pop("model_caps", NO_MODEL_CAPS),
    )


def virtual_key(**fields: Any) -> VirtualKey:
    """A key that may use every model of every provider, unless told otherwise."""
    key = VirtualKey("vk-1", "workshop-vk-1", provider_configs=(ProviderConfig("pc-1", ANY, allowed_models=(ANY,)),))
    return replace(key, **fields)


def services(current: Snapshot | None = None, **policy: Any) -> Services:
    """Services around recording doubles."""
    clock = FixedClock()
    return Services(
        policy=Policy(**policy),
        snapshots=FixedSnapshots(current or snapshot()),
        book=_BOOK,
        limits=_LIMITS,
        ledger=RecordingLedger(),
        logs=RecordingLogs(),
        learned=Learned(),
        clock=clock,
        ids=Ids(clock, lambda count: bytes(count)),
        random=Random(7),
    )


def call(
    path: str = "/openai/v1/chat/completions",
    *,
    method: str = "POST",
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    host: str = "127.0.0.1",
    port: int = 8080,
) -> Call:
    """A call whose request head has just arrived."""
    rows = [(name.encode(), value.encode()) for name, value in ({"host": f"{host}:{port}"} | (headers or {})).items()]
    request = tutils.treq(
        method=method.encode(), path=path.encode(), host=host, port=port, scheme=b"http", authority=b"", content=body,
        headers=tuple(rows),
    )  # fmt: skip
    return Call("call-1", tflow.tflow(req=request), NOW_MS, 1000.0)


def cap(cap_id: str = "cap-1", unit: Unit = Unit.USD, limit: int = 500_000_000, **fields: Any) -> Cap:
    """A budget of $0.50 an hour on the key, unless told otherwise."""
    values: dict[str, Any] = {
        "name": f"{cap_id}-name", "scope": Scope.VIRTUAL_KEY, "scope_id": "vk-1", "scope_name": "workshop-vk-1", "window": "1h",
    }  # fmt: skip
    return Cap(id=cap_id, unit=unit, limit=limit, **(values | fields))


def cap_state(of: Cap, used: int = 0, held: int = 0, resets_in_ms: int | None = 3_600_000) -> CapState:
    """The cap's sums; its window ends `resets_in_ms` from now."""
    return CapState(of, used, held, resets_at_ms=None if resets_in_ms is None else NOW_MS + resets_in_ms)


def chat(**fields: Any) -> bytes:
    """A chat request to gpt-4o-mini that says `hello`: 5 bytes of text and 32 tokens of framing."""
    return json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]} | fields).encode()


def message(**fields: Any) -> bytes:
    """A request to claude-haiku-4-5 that says `hello`: 5 bytes of text and 48 tokens of framing."""
    said = [{"role": "user", "content": "hello"}]
    return json.dumps({"model": "claude-haiku-4-5", "max_tokens": 1000, "messages": said} | fields).encode()


async def on_its_way(made: Call, with_services: Services) -> Call:
    """The call after everything before upstream; `sent` when nothing refused it."""
    made.flow.request.headers.setdefault("x-bf-vk", KEY)
    chain.head(made, with_services, "origin", None)
    if made.refusal is None and not made.local and not chain.is_streamed_through(made):
        await chain.body(made, with_services)
    made.sent = made.refusal is None
    return made


def answered(made: Call, status: int = 200, content: bytes = b"", **headers: str) -> http.Response:
    """Put the head (and body) of an answer on the call's flow; underscores in header names stand for hyphens."""
    made.flow.response = http.Response.make(status, content, {"content-type": "application/json"})
    for name, value in headers.items():
        made.flow.response.headers[name.replace("_", "-")] = value
    return made.flow.response
