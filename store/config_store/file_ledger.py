"""File-only mode, the ledger's side: which caps and which keys of config.json the ledger knows of. No secrets come here."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from store.config_store.meta import get_meta, set_meta
from store.config_store.read import Governance
from store.config_store.records import VirtualKeyRecord
from store.database import Connection, bump_revision
from store.errors import Conflict, UserError
from store.ledger.caps import delete_cap, load_caps, put_cap
from store.ledger.rows import read_caps
from store.ledger.types import Cap, Scope

log = logging.getLogger(__name__)

_KEPT_IN = "governance"
_THE_FILE = "file"
_REASON = "config.json"
_WINDOW = ("window", "calendar_aligned", "timezone", "quarter_start_month")


@dataclass(frozen=True, slots=True)
class FileReport:
    """What a file changed in the ledger. Counts of caps."""

    added: int = 0
    changed: int = 0
    removed: int = 0

    def __str__(self) -> str:
        """`2 caps added, 1 changed`; nothing for no change."""
        counts = ((self.added, "added"), (self.changed, "changed"), (self.removed, "removed"))
        words = [f"{count} {word}" for count, word in counts if count]
        return f"caps: {', '.join(words)}" if words else ""


def holds_file_ledger(connection: Connection) -> bool:
    """Whether this database is the ledger of file-only mode, and so no configuration store."""
    return get_meta(connection, _KEPT_IN) == _THE_FILE


def check_place(connection: Connection, name: str) -> None:
    """Raises UserError when the database holds a configuration of its own, which a file must not overwrite."""
    if holds_file_ledger(connection):
        return
    tables = ("providers", "virtual_keys", "teams", "customers")
    if any(connection.execute(f"SELECT 1 FROM {table} LIMIT 1") for table in tables) or file_caps(connection):
        raise UserError(
            f"{name} holds a configuration of its own; while config_store.enabled is false the ledger needs another place: "
            "name one in ledger_store"
        )


def file_caps(connection: Connection) -> tuple[Cap, ...]:
    """Living caps that a configuration made: all but those of runs."""
    return tuple(cap for cap in load_caps(connection) if cap.scope is not Scope.RUN)


def put_caps(connection: Connection, wanted: Iterable[Cap]) -> FileReport:
    """Make the living caps exactly these, with what was spent; a removed one stays as a tombstone until its holds settle.

    Raises UserError for a cap that the ledger cannot take.
    """
    before = {cap.id: cap for cap in file_caps(connection)}
    after = {cap.id: cap for cap in wanted}
    fresh = [cap_id for cap_id in after if cap_id not in before]
    buried = {cap_id: stored.cap for cap_id, stored in read_caps(connection, fresh).items()}
    changed = 0
    for cap in after.values():
        known = before.get(cap.id)
        if known == cap:
            continue
        changed += known is not None
        try:
            put_cap(connection, cap if known is not None else _revived(cap, buried.get(cap.id)), reason=_REASON)
        except ValueError as error:
            raise UserError(f"the cap {cap.name!r} of {cap.scope_name!r}: {error}") from None
    removed = [cap_id for cap_id in before if cap_id not in after]
    for cap_id in removed:
        delete_cap(connection, cap_id, reason=_REASON)
    return FileReport(len(fresh), changed, len(removed))


def put_keys(connection: Connection, keys: Sequence[VirtualKeyRecord]) -> bool:
    """Let the ledger know which keys there are, by id: runs belong to them, and a process that has not read the file since
    finds out which of its keys are gone. True when something changed."""
    configs = {config.id: (key.id, place) for key in keys for place, config in enumerate(key.provider_configs)}
    known_keys = {row[0] for row in connection.execute("SELECT id FROM virtual_keys")}
    known_configs = {row[0]: (row[1], row[2]) for row in connection.execute(_KNOWN_CONFIGS)}
    ids = [key.id for key in keys]
    gone = known_keys - {*ids}
    for key_id in gone:
        _forget(connection, key_id)
    lost = [(config,) for config in known_configs if config not in configs]
    connection.executemany("DELETE FROM provider_configs WHERE id = ?", lost)
    connection.executemany(_ADD_KEY, [(key_id, key_id, f"file:{key_id}") for key_id in ids if key_id not in known_keys])
    rows = [(config, *place) for config, place in configs.items() if known_configs.get(config) != place]
    connection.executemany(_PUT_CONFIG, rows)
    return bool(gone or lost or rows or {*ids} - known_keys)


def claim(connection: Connection) -> None:
    """Say that this database is the ledger of file-only mode."""
    if not holds_file_ledger(connection):
        set_meta(connection, _KEPT_IN, _THE_FILE)
        bump_revision(connection)


def still_known(governance: Governance, ledger: Connection) -> Governance:
    """The governance of a file without keys and provider configs that another process has taken out since.

    Their caps are gone from the ledger: they would be open doors.
    """
    keys = {row[0] for row in ledger.execute("SELECT id FROM virtual_keys")}
    configs = {row[0] for row in ledger.execute("SELECT id FROM provider_configs")}
    kept = [key for key in governance.virtual_keys if key.id in keys]
    made = tuple(replace(key, provider_configs=tuple(c for c in key.provider_configs if c.id in configs)) for key in kept)
    if made == governance.virtual_keys:
        return governance
    log.warning(
        "%d virtual keys or parts of them are not served: another process has applied another config.json since; "
        "restart this one with the same file",
        sum(before not in made for before in governance.virtual_keys),
    )
    return replace(governance, virtual_keys=made)


_KNOWN_CONFIGS = "SELECT id, virtual_key_id, position FROM provider_configs"
_ADD_KEY = (
    "INSERT INTO virtual_keys (id, name, description, value, value_hash, hint, is_active, calendar_aligned, created_ms, "
    "updated_ms) VALUES (?, ?, '', NULL, ?, '', 1, 0, 0, 0)"
)
_PUT_CONFIG = (
    "INSERT INTO provider_configs (id, virtual_key_id, position, provider, allowed_models, blacklisted_models, key_ids, "
    "calendar_aligned) VALUES (?, ?, ?, '', '[]', '[]', '[]', 0) "
    "ON CONFLICT (id) DO UPDATE SET virtual_key_id = excluded.virtual_key_id, position = excluded.position"
)


def _forget(connection: Connection, key_id: str) -> None:
    for (run_id,) in connection.execute("SELECT id FROM run_credentials WHERE virtual_key_id = ?", (key_id,)):
        for cap in load_caps(connection, scope=Scope.RUN, scope_id=run_id):
            delete_cap(connection, cap.id, reason=_REASON)
    connection.execute("DELETE FROM run_credentials WHERE virtual_key_id = ?", (key_id,))
    connection.execute("DELETE FROM provider_configs WHERE virtual_key_id = ?", (key_id,))
    connection.execute("DELETE FROM virtual_keys WHERE id = ?", (key_id,))


def _revived(cap: Cap, buried: Cap | None) -> Cap:
    """A cap that is new to the living: made now, or as old as its tombstone when its window is the same."""
    if buried is None:
        return replace(cap, created_ms=0)
    if (buried.scope, buried.scope_id) != (cap.scope, cap.scope_id):
        raise Conflict(
            f"the id {cap.id!r} belonged to a cap of {buried.scope_name or buried.scope_id!r} before; give the cap of "
            f"{cap.scope_name!r} an id of its own, or none"
        )
    same = all(getattr(cap, name) == getattr(buried, name) for name in _WINDOW)
    return replace(cap, created_ms=buried.created_ms if same else 0)
