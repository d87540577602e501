"""Brings a snapshot up to date by reading only what was changed since.

With ten thousand keys, reading all of it takes a third of a second of a worker's time, and calls that are held meanwhile wait.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from store.config_store import read
from store.config_store.build import build_snapshot, load_snapshot
from store.config_store.file_ledger import still_known
from store.config_store.read import Governance
from store.config_store.snapshot import Snapshot, VirtualKey
from store.config_store.store import ConfigStore
from store.database import Connection, governance_revision
from store.ledger.types import Scope

MOST_KEYS = 200
"""More keys than this are read with all the others."""
_NOT_IN_SNAPSHOTS = frozenset({"budget", "call", "prompt", "audit", "log"})
"""Kinds of edits that change nothing a call is decided by; the caps of a budget say for themselves whom they bind."""
_WIDE = frozenset({"provider", "provider_limits", "model_config", "routing_rule", "pricing_override", "client_config"})
"""Kinds that every call may see: read whole, there are few of them."""


@dataclass(slots=True)
class _Touched:
    """What was changed since a snapshot was made."""

    keys: set[str] = field(default_factory=set)
    wide: bool = False


def follow(store: ConfigStore, environ: Mapping[str, str], before: Snapshot) -> Snapshot:
    """The governance as it is now, given an earlier snapshot of the same store. Raises StoreUnavailable, UserError."""
    with store.reading() as (connection, ledger):
        revision = governance_revision(ledger)
        touched = _touched(connection, ledger, before, revision)
        if touched is not None:
            governance = _part(connection, ledger, touched, store.clock.now_ms())
            if store.file_only:
                governance = still_known(governance, ledger)
    if touched is None:
        return load_snapshot(store, environ)
    part = build_snapshot(governance, revision, store.vault, environ, store.builtin)
    rest = part if touched.wide else before
    return replace(
        rest,
        revision=revision,
        virtual_keys=_merged(before.virtual_keys, part.virtual_keys, lambda key: key.id in touched.keys),
        by_hash=_merged(before.by_hash, part.by_hash, lambda key: key.id in touched.keys),
        previous=_merged(before.previous, part.previous, lambda pair: pair[1].id in touched.keys),
    )


def _touched(connection: Connection, ledger: Connection, before: Snapshot, revision: int) -> _Touched | None:
    """None: everything, or more than is worth picking out."""
    rows = ledger.execute("SELECT revision, kind, entity_id FROM changes WHERE revision > ?", (before.revision,))
    if len(rows) != revision - before.revision:  # older than what is remembered, or of another store
        return None
    touched = _Touched()
    for kind, entity_id in {(kind, entity_id) for _, kind, entity_id in rows}:
        if kind in _NOT_IN_SNAPSHOTS:
            continue
        found = _keys_of(connection, ledger, before, kind, entity_id)
        if kind in _WIDE or kind in (Scope.PROVIDER, Scope.MODEL) or _is_gone(connection, kind, entity_id):
            touched.wide = True
        elif found is None:
            return None
        touched.keys |= found or set()
        if len(touched.keys) > MOST_KEYS:
            return None
    return touched


def _is_gone(connection: Connection, kind: str, entity_id: str) -> bool:
    """Whether somebody was deleted: rules and prices made for them went too."""
    return kind in _TABLES and not connection.execute(f"SELECT 1 FROM {_TABLES[kind]} WHERE id = ?", (entity_id,))


def _keys_of(connection: Connection, ledger: Connection, before: Snapshot, kind: str, entity_id: str) -> set[str] | None:
    """Ids of the virtual keys that look different after this change, as far as it is one of theirs; None for an unknown kind.

    Those that belong to it now, by the store, and those that did before, by the snapshot.
    """
    if kind == "virtual_key":
        return {entity_id}
    if kind not in _MEMBERS:
        return None
    sql, did_belong = _MEMBERS[kind]
    found = (ledger if kind == Scope.RUN else connection).execute(sql, (entity_id,))
    return {row[0] for row in found} | {key.id for key in before.by_hash.values() if did_belong(key, entity_id)}


def _had_config(key: VirtualKey, config_id: str) -> bool:
    return any(config.id == config_id for config in key.provider_configs)


def _had_model_config(key: VirtualKey, config_id: str) -> bool:
    return any(limit.id == config_id for limit in key.model_caps.limits)


_TABLES = {"virtual_key": "virtual_keys", "team": "teams", "customer": "customers"}
_OF_MODEL_CONFIG = "SELECT scope_id FROM model_configs WHERE id = ? AND scope = 'virtual_key'"
_MEMBERS: Mapping[str, tuple[str, Callable[[VirtualKey, str], bool]]] = {
    "team": ("SELECT id FROM virtual_keys WHERE team_id = ?", lambda key, team_id: key.team_id == team_id),
    "customer": (
        "SELECT k.id FROM virtual_keys AS k LEFT JOIN teams AS t ON t.id = k.team_id "
        "WHERE coalesce(k.customer_id, t.customer_id) = ?",
        lambda key, customer_id: key.customer_id == customer_id,
    ),
    "provider_config": ("SELECT virtual_key_id FROM provider_configs WHERE id = ?", _had_config),
    "run": ("SELECT virtual_key_id FROM run_credentials WHERE id = ?", lambda key, run_id: key.run_id == run_id),
    "model_config": (_OF_MODEL_CONFIG, _had_model_config),
    "virtual_key_model": (_OF_MODEL_CONFIG, _had_model_config),
}
"""Kind → how its keys are found in the store, and whether a key of a snapshot was one of them."""


def _part(connection: Connection, ledger: Connection, touched: _Touched, now_ms: int) -> Governance:
    """The touched keys with everything that belongs to them, and what every call may see when that was touched."""
    keys = read.virtual_keys(connection, sorted(touched.keys))
    ids = {key.id for key in keys}
    teams = {key.team_id: team for key in keys if key.team_id and (team := read.team(connection, key.team_id))}
    wanted = {key.customer_id for key in keys} | {team.customer_id for team in teams.values()}
    customers = [group for customer_id in wanted if customer_id and (group := read.customer(connection, customer_id))]
    runs = tuple(run for run in read.runs(ledger, now_ms=now_ms) if run.virtual_key_id in ids)
    configs = read.model_configs(connection) if touched.wide else read.model_configs_of(connection, sorted(ids))
    owners = {(Scope.VIRTUAL_KEY, key.id) for key in keys}
    owners |= {(Scope.PROVIDER_CONFIG, config.id) for key in keys for config in key.provider_configs}
    owners |= {(Scope.TEAM, team.id) for team in teams.values()}
    owners |= {(Scope.CUSTOMER, customer.id) for customer in customers}
    owners |= {(Scope.RUN, run.id) for run in runs}
    owners |= {(Scope.VIRTUAL_KEY_MODEL, config.id) for config in configs if config.scope_id in ids}
    caps = {owner: found for owner in sorted(owners) if (found := read.caps_of(ledger, *owner))}
    wide: dict[str, Any] = {"providers": ()}
    if touched.wide:
        wide = read.everybodys(connection)
        caps |= read.caps_by_scope(ledger, (Scope.PROVIDER, Scope.MODEL))
    return Governance(
        virtual_keys=keys,
        teams=tuple(teams.values()),
        customers=tuple(customers),
        runs=runs,
        caps=caps,
        model_configs=configs,
        **wide,
    )


def _merged[Value](
    before: Mapping[str, Value], part: Mapping[str, Value], is_touched: Callable[[Value], bool]
) -> MappingProxyType[str, Value]:
    """What was there without what was touched, and what is there of that now."""
    return MappingProxyType({name: value for name, value in before.items() if not is_touched(value)} | dict(part))
