"""Everything the addon works with, opened in the right order and closed in the other: stores, ledger, prices, policy."""

import logging
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from random import Random, SystemRandom
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from addons.client_settings import ClientSettings
from addons.fullness import Fullness
from addons.inspector import InspectorFeed
from addons.opening import open_store
from addons.policy import AssumedPrice, Policy
from addons.proxy.egress import Egress
from addons.proxy.limits import MEBIBYTE, Limits
from addons.proxy.timeouts import Watchdog
from addons.proxy.upstream_proxy import UpstreamProxy
from addons.redact import redact_text
from addons.services import Services
from addons.snapshots import SnapshotKeeper
from addons.steps.learned import Learned
from addons.steps.local import LocalAnswers
from store.clock import Clock, Ids, SystemClock
from store.config_store.build import load_snapshot
from store.config_store.follow import follow
from store.config_store.quota import quota_of
from store.config_store.secret_text import environ_of
from store.config_store.snapshot import Snapshot, VirtualKey
from store.database import Database, governance_revision
from store.errors import StoreUnavailable, UserError
from store.ledger.ledger import Ledger
from store.ledger.levels import Levels
from store.logs.opening import open_logs_store
from store.logs.types import CallRow
from store.logs.writer import LogWriter
from store.prices.book import PriceBook
from store.prices.limits import LimitsBook
from store.prices.overrides import load_overrides
from store.settings import FlatPrice, Settings

logger = logging.getLogger(__name__)

LOOPBACK_NAMES = frozenset({"127.0.0.1", "::1", "localhost"})
BODY_LOG_BYTES = 64 * 1024


@dataclass(slots=True)
class Address:
    """Where the gateway listens."""

    host: str = "127.0.0.1"
    port: int = 8080
    other_ports: tuple[int, ...] = ()
    """The gateway's own further ports (console, inspector, listeners): never reachable through it."""

    @property
    def on_loopback(self) -> bool:
        return self.host in LOOPBACK_NAMES


class NoLogs:
    """Where rows go when logging is switched off: the ledger alone remembers."""

    def add(self, row: CallRow) -> None:
        """Nowhere."""


class UpstreamAddresses:
    """(host, port) of every configured base URL: the operator's own choice, private or not. Remembered per revision."""

    def __init__(self, snapshots: SnapshotKeeper) -> None:
        self._snapshots = snapshots
        self._revision = -1
        self._found: frozenset[tuple[str, int]] = frozenset()

    def __call__(self, host: str, port: int) -> bool:
        snapshot = self._snapshots.current
        if self._revision != snapshot.revision:
            parts = [urlsplit(provider.base_url) for provider in snapshot.providers.values() if provider.base_url]
            self._found = frozenset((p.hostname or "", p.port or (443 if p.scheme == "https" else 80)) for p in parts)
            self._revision = snapshot.revision
        return (host, port) in self._found


def _nowhere(host: str, port: int) -> bool:
    return False


@dataclass(slots=True)
class Runtime:
    """The addon's surroundings. `owned_by_addon`: a stock tool made it and closes it at the end."""

    services: Services
    snapshots: SnapshotKeeper
    ledger: Ledger
    database: Database
    """Where the ledger is, and the configuration with it."""
    logs: LogWriter
    logs_database: Database
    egress: Egress
    watchdog: Watchdog
    local: LocalAnswers
    upstreams: Callable[[str, int], bool] = _nowhere
    """Whether (host, port) is the base URL of a configured provider."""
    unmatched: str = "tunnel"
    require_auth: bool = False
    upstream_proxy: UpstreamProxy | None = None
    feed: InspectorFeed | None = None
    picture: Database | None = None
    """File-only mode: the configuration, in memory."""
    draining: bool = False
    grace_over: bool = False
    owned_by_addon: bool = False

    async def close(self) -> None:
        """Settle and write what is left, then close the stores. Safe to call twice."""
        await self.services.fullness.close()
        await self.snapshots.close()
        await self.ledger.drain(10.0)
        await self.ledger.close()
        if self.feed is not None:
            await self.feed.close()
        self.logs.close()
        self.logs_database.close()
        self.database.close()
        if self.picture is not None:
            self.picture.close()


def policy_of(settings: Settings, address: Address, environ: Mapping[str, str]) -> Policy:
    """The steps' policy from the settings."""
    gateway, client = settings.gateway, settings.client
    unpriced: str | AssumedPrice
    if isinstance(gateway.unpriced, FlatPrice):
        unpriced = AssumedPrice(
            input_picos=_picos_per_token(gateway.unpriced.input_per_million_usd),
            output_picos=_picos_per_token(gateway.unpriced.output_per_million_usd),
        )
    else:
        unpriced = gateway.unpriced
    names = {"localhost", "127.0.0.1", "::1", address.host.lower()}
    if gateway.public_url:
        names.add((urlsplit(gateway.public_url).hostname or "").lower())
    return Policy(
        enforce_auth=client.enforce_auth_on_inference,
        default_virtual_key=gateway.default_virtual_key,
        allow_direct_keys=client.allow_direct_keys,
        allowed_origins=tuple(client.allowed_origins),
        routing_chain_max_depth=client.routing_chain_max_depth,
        unpriced=unpriced,
        unmetered=gateway.unmetered,
        trim_output=gateway.trim_output,
        min_output_tokens=gateway.min_output_tokens,
        own_names=frozenset(names),
        own_port=address.port,
        listener_keys=MappingProxyType({listener.port: listener.virtual_key for listener in gateway.listeners}),
        max_body_bytes=gateway.limits.max_body_mb * MEBIBYTE,
        body_log_bytes=0 if client.disable_content_logging else BODY_LOG_BYTES,
    )


def _picos_per_token(usd_per_million: Decimal) -> int:
    """USD per million tokens are, to the digit, pico-dollars per token divided by a million. A fraction is rounded up, as in
    the price book: a price that is not zero must not become zero."""
    return math.ceil(usd_per_million * 1_000_000)


def egress_of(settings: Settings, address: Address, trusted: Callable[[str, int], bool]) -> Egress:
    """The rules on destinations from the settings. Raises UserError for an allowed entry that is no host and no network."""
    try:
        return Egress((address.port, *address.other_ports), address.on_loopback, settings.gateway.forward.allow, trusted)
    except ValueError as fault:
        raise UserError(f"gateway.forward.allow: {fault}") from None


def limits_of(settings: Settings) -> Limits:
    """The proxy core's limits from the settings."""
    given = settings.gateway.limits
    return Limits(
        max_body_bytes=given.max_body_mb * MEBIBYTE,
        max_header_bytes=given.max_header_kb * 1024,
        max_connections=given.max_connections,
        header_timeout_seconds=float(given.header_timeout_seconds),
        connect_timeout_seconds=float(given.connect_timeout_seconds),
        first_byte_timeout_seconds=float(given.first_byte_timeout_seconds),
        idle_stream_timeout_seconds=float(given.idle_stream_timeout_seconds),
    )


async def open_runtime(
    app_dir: Path,
    settings: Settings,
    address: Address,
    *,
    version: str,
    environ: Mapping[str, str] = os.environ,
    clock: Clock | None = None,
    random: Random | None = None,
    feed: InspectorFeed | None = None,
    watched: bool = False,
) -> Runtime:
    """Open the stores and start the ledger. Raises UserError for what the operator can mend, StoreUnavailable otherwise."""
    clock = clock or SystemClock()
    environ = environ_of(app_dir, environ)
    ids = Ids(clock)
    store = open_store(app_dir, settings, clock, ids)
    ledger = Ledger(
        store.ledger,
        clock=clock,
        ids=ids,
        hold_wait_seconds=float(settings.gateway.hold_wait_seconds),
        lease_dir=app_dir / "leases",
        spool_dir=app_dir / "spool",
        retention_days=settings.gateway.ledger_retention_days,
        audit_days=settings.gateway.audit_retention_days,
    )
    await ledger.start()
    logs_database = open_logs_store(app_dir, settings, clock=clock)
    logs = LogWriter(logs_database, clock=clock, body_bytes=0, clean=redact_text)

    def load(before: Snapshot | None) -> Snapshot:
        return load_snapshot(store, environ) if before is None else follow(store, environ, before)

    def revision() -> int:
        with store.ledger.read() as connection:
            return governance_revision(connection)

    snapshots = SnapshotKeeper(load, revision, load(None), store.ledger.watch)
    snapshots.start()
    client = ClientSettings(settings, logs, NoLogs(), lambda found: policy_of(found, address, environ), feed)
    policy, rows = client.first(snapshots.current)
    logs.start()
    prices = settings.gateway.prices.file
    book = PriceBook.load(load_overrides(app_dir / prices) if prices else None)
    services = Services(
        policy=policy,
        snapshots=snapshots,
        book=book,
        limits=LimitsBook.load(book),
        ledger=ledger,
        logs=rows,
        learned=Learned(),
        clock=clock,
        ids=ids,
        random=random or SystemRandom(),
        watched=feed is not None or watched,
    )
    snapshots.on_new = client.follow(services)
    services.fullness = Fullness(Levels(store.ledger), lambda: snapshots.current.routing_rules.reads_fullness)
    await services.fullness.start()
    unmatched, require_auth = settings.gateway.forward.resolved(on_loopback=address.on_loopback)

    async def quota(key: VirtualKey) -> dict[str, Any]:
        found: dict[str, Any] = await quota_of(store, key)
        return found

    def health() -> dict[str, Any] | None:
        try:
            revision()
        except StoreUnavailable:
            return None
        return {"db_pings": "ok"}

    upstreams = UpstreamAddresses(snapshots)
    return Runtime(
        services=services,
        upstreams=upstreams,
        snapshots=snapshots,
        ledger=ledger,
        database=store.ledger,
        picture=store.database if store.file_only else None,
        logs=logs,
        logs_database=logs_database,
        egress=egress_of(settings, address, upstreams),
        watchdog=Watchdog(),
        local=LocalAnswers(
            version=version,
            ca_certificate=app_dir / "ca" / "mitmproxy-ca-cert.pem",
            quota=quota,
            health=health,
            list_models=book.models,
        ),
        unmatched=unmatched,
        require_auth=require_auth,
        upstream_proxy=UpstreamProxy.parse(settings.gateway.upstream_proxy) if settings.gateway.upstream_proxy else None,
        feed=feed,
    )
