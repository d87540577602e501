"""Model configs as owners of caps: their scope in the ledger, their name in a refusal, their row."""

from collections.abc import Sequence

from store.config_store.make_caps import Owner
from store.config_store.records import ModelConfigRecord, ProviderConfigRecord
from store.config_store.snapshot import ANY
from store.database import Connection
from store.errors import NotFound
from store.ledger.types import Scope


def scope_of(record: ModelConfigRecord) -> Scope:
    """Where in the order of refusals its caps stand."""
    return Scope.VIRTUAL_KEY_MODEL if record.scope == "virtual_key" else Scope.MODEL


def owner_of(record: ModelConfigRecord, key_name: str = "") -> Owner:
    """The owner of its caps. `key_name` is that of the virtual key, where there is one.

    Its name is what a refusal says: `gpt-4o`, `gpt-4o at openai`, `workshop-vk-1 on gpt-4o`, `all models at openai`.
    """
    model = "all models" if record.model_name == ANY else record.model_name
    where = f"{model} at {record.provider}" if record.provider else model
    return Owner(scope_of(record), record.id, f"{key_name} on {where}" if key_name else where, record.calendar_aligned)


def stored_owner(connection: Connection, record: ModelConfigRecord) -> Owner:
    """As `owner_of`, with the virtual key's name looked up."""
    if record.scope_id is None:
        return owner_of(record)
    found = connection.execute("SELECT name FROM virtual_keys WHERE id = ?", (record.scope_id,))
    if not found:
        raise NotFound(f"there is no virtual key {record.scope_id!r}")
    return owner_of(record, found[0][0])


def write_model_config(connection: Connection, record: ModelConfigRecord) -> None:
    """Insert or replace the row. Whom it binds never changes: another target is another row."""
    connection.execute(
        "INSERT INTO model_configs (id, model_name, provider, scope, scope_id, calendar_aligned, created_ms, updated_ms) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET calendar_aligned = excluded.calendar_aligned, "
        "updated_ms = excluded.updated_ms",
        (
            record.id,
            record.model_name,
            record.provider or "",
            record.scope,
            record.scope_id or "",
            int(record.calendar_aligned),
            record.created_ms,
            record.updated_ms,
        ),
    )


def shown_in(
    configs: Sequence[ProviderConfigRecord], models: Sequence[ModelConfigRecord]
) -> tuple[tuple[ModelConfigRecord, ...], ...]:
    """For each provider config of a virtual key its `model_budgets`: the key's model configs of that provider.

    Those of a provider that several configs name stand in the first; those of no provider in the first for any provider.
    """
    seen: set[str] = set()
    made = []
    for config in configs:
        first = config.provider not in seen
        seen.add(config.provider)
        wanted = None if config.provider == ANY else config.provider
        made.append(tuple(model for model in models if first and model.provider == wanted))
    return tuple(made)
