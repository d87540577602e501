"""Run credentials for `exec`: a short-lived value that opens a virtual key's door, with a cap of its own on top.

Every run carries two caps that only watch (money and requests), so that its cost is in the ledger whether or not it has a budget.
"""

from typing import Any

from store.clock import iso_utc
from store.config_store import read
from store.config_store.change_caps import drop_caps
from store.config_store.keys import hash_key_value, key_hint, new_run_value
from store.config_store.make_caps import Owner, rate_caps
from store.config_store.records import NewSecret, VirtualKeyRecord
from store.config_store.specs import RateLimitSpec
from store.config_store.store import ConfigStore
from store.database import Connection, bump_revision
from store.errors import NotFound, UserError
from store.ledger.caps import put_cap
from store.ledger.types import Cap, Enforcement, Scope, Unit
from store.money import MAX_NANOS, usd_from_nanos

DEFAULT_KEY_NAME = "default"
MAX_TTL_SECONDS = 30 * 86_400
_KEPT_AFTER_MS = 7 * 86_400_000


def run_cost_cap_id(run_id: str) -> str:
    """The cap that counts what a run costs: its budget, or one that only watches."""
    return f"run-{run_id}-usd"


def run_calls_cap_id(run_id: str) -> str:
    """The cap that counts a run's calls; it only watches."""
    return f"run-{run_id}-requests"


def create_run(
    store: ConfigStore,
    virtual_key: str | None,
    budget_nanos: int | None,
    ttl_seconds: int,
    rate_limit: RateLimitSpec | None = None,
) -> NewSecret:
    """A fresh run credential for a virtual key (by id or name; None: `default`, or the only key there is).

    `budget_nanos` and `rate_limit` are the run's own, on top of the key's. Raises NotFound, UserError: no such key, switched off,
    expired, or a budget, limit or lifetime that makes no sense.
    """
    if budget_nanos is not None and budget_nanos < 0:
        raise UserError("budget_usd: must not be negative")
    if not 1 <= ttl_seconds <= MAX_TTL_SECONDS:
        raise UserError(f"ttl_seconds: must be from 1 to {MAX_TTL_SECONDS}")
    now_ms = store.clock.now_ms()
    with store.writing() as connection:
        with store.beside(connection) as governance:
            key = _key_for_run(governance, virtual_key, now_ms)
        _forget_old(connection, now_ms)
        run_id, value = store.ids.new(), new_run_value(store.entropy)
        connection.execute(
            "INSERT INTO run_credentials (id, virtual_key_id, value_hash, hint, budget_nanos, created_ms, expires_at_ms) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (run_id, key.id, hash_key_value(value), key_hint(value), budget_nanos, now_ms, now_ms + ttl_seconds * 1000),
        )
        limits = rate_caps(Owner(Scope.RUN, run_id, key.name), rate_limit, (), now_ms, "rate_limit")
        for cap in (*_caps(run_id, key.name, budget_nanos, now_ms), *limits):
            put_cap(connection, cap)
        details: dict[str, Any] = {"virtual_key_id": key.id, "expires_at": iso_utc(now_ms + ttl_seconds * 1000)}
        if budget_nanos is not None:
            details["budget_usd"] = usd_from_nanos(budget_nanos)
        store.note(connection, "create", "run", run_id, name=key.name, details=details)
        bump_revision(connection, "virtual_key", key.id)
    return NewSecret(run_id, value)


def end_run(store: ConfigStore, run_id: str) -> None:
    """Close a run credential's door now; its sums stay readable for a while. Raises NotFound."""
    with store.writing() as connection:
        run = read.run(connection, run_id)
        if run is None:
            raise NotFound(f"there is no run {run_id!r}")
        now_ms = store.clock.now_ms()
        connection.execute(
            "UPDATE run_credentials SET expires_at_ms = ? WHERE id = ? AND expires_at_ms > ?", (now_ms, run_id, now_ms)
        )
        store.note(connection, "end", "run", run_id, details={"virtual_key_id": run.virtual_key_id})
        bump_revision(connection, "virtual_key", run.virtual_key_id)


def _key_for_run(connection: Connection, wanted: str | None, now_ms: int) -> VirtualKeyRecord:
    if wanted:
        key = read.virtual_key(connection, wanted)
        if key is None:
            raise NotFound(f"there is no virtual key {wanted!r}; `tollgate keys list` shows what there is")
    else:
        key = read.virtual_key(connection, DEFAULT_KEY_NAME)
        if key is None:
            page, total = read.key_page(connection, read.KeyQuery(limit=1))
            if total == 0:
                raise UserError("there is no virtual key yet; make one with `tollgate keys create NAME`")
            if total > 1:
                raise UserError("there are several virtual keys; say which one with -k NAME")
            key = page[0]
    if not key.is_active:
        raise UserError(f"the virtual key {key.name!r} is switched off; switch it on, or name another")
    if key.expires_at_ms is not None and key.expires_at_ms <= now_ms:
        raise UserError(f"the virtual key {key.name!r} has expired; give it a later expires_at, or name another")
    return key


def _forget_old(connection: Connection, now_ms: int) -> None:
    for (run_id,) in connection.execute("SELECT id FROM run_credentials WHERE expires_at_ms < ?", (now_ms - _KEPT_AFTER_MS,)):
        drop_caps(connection, Scope.RUN, run_id)
        connection.execute("DELETE FROM run_credentials WHERE id = ?", (run_id,))


def _caps(run_id: str, key_name: str, budget_nanos: int | None, now_ms: int) -> tuple[Cap, Cap]:
    limited = budget_nanos is not None
    cost = Cap(
        id=run_cost_cap_id(run_id),
        name="run budget" if limited else "cost of the run",
        scope=Scope.RUN,
        scope_id=run_id,
        scope_name=key_name,
        unit=Unit.USD,
        limit=budget_nanos if budget_nanos is not None else MAX_NANOS // 2,
        window=None,
        enforcement=Enforcement.HARD if limited else Enforcement.OBSERVE,
        created_ms=now_ms,
    )
    calls = Cap(
        id=run_calls_cap_id(run_id),
        name="calls of the run",
        scope=Scope.RUN,
        scope_id=run_id,
        scope_name=key_name,
        unit=Unit.REQUESTS,
        limit=MAX_NANOS // 2,
        window=None,
        enforcement=Enforcement.OBSERVE,
        created_ms=now_ms,
    )
    return cost, calls
