"""Changes of virtual keys and their provider configs: create, update, rotate, delete, each in one transaction."""

import hmac
from collections.abc import Sequence
from dataclasses import replace

from store.config_store import read
from store.config_store.change_caps import drop_caps, known_providers, reset_money, set_caps
from store.config_store.change_models import refresh_model_caps, remove_model_configs, reset_model_caps, sync_model_budgets
from store.config_store.change_prices import drop_overrides_of
from store.config_store.change_routing import drop_routing_rules
from store.config_store.keys import check_key_value, hash_key_value, key_hint, new_key_value
from store.config_store.make_caps import Owner
from store.config_store.problems import nearest
from store.config_store.records import ProviderConfigRecord, VirtualKeyRecord
from store.config_store.rows import names_text
from store.config_store.snapshot import ANY
from store.config_store.specs import ProviderConfigSpec, VirtualKeyPatch, VirtualKeySpec
from store.config_store.store import ConfigStore
from store.database import Connection
from store.errors import Conflict, NotFound, UserError
from store.ledger.types import Scope


def create_virtual_key(store: ConfigStore, spec: VirtualKeySpec) -> VirtualKeyRecord:
    """Make a virtual key. The record carries its value, for once even when only the hash is kept.

    Raises UserError (400), Conflict (the name or the value is taken).
    """
    if spec.expires_at_ms is not None and spec.expires_at_ms <= store.clock.now_ms():
        raise UserError("expires_at: is in the past; give a time to come")
    with store.editing("create", "virtual_key") as edit:
        record = insert_virtual_key(store, edit.connection, spec, value=_literal_value(spec))
        edit.id = record.id
        return record


def insert_virtual_key(
    store: ConfigStore, connection: Connection, spec: VirtualKeySpec, *, value: str | None, path: str = ""
) -> VirtualKeyRecord:
    """As `create_virtual_key`, inside a transaction; `value` None makes a fresh one."""
    value = value or new_key_value(store.entropy)
    key_id = spec.id or store.ids.new()
    value_hash, now_ms = hash_key_value(value), store.clock.now_ms()
    _refuse_doubles(connection, key_id, spec.name, value_hash)
    team_id, customer_id = _owner_ids(connection, spec.team_id, spec.customer_id)
    record = VirtualKeyRecord(
        id=key_id,
        name=spec.name,
        value=None if store.vault.is_sealing else value,
        value_hash=value_hash,
        hint=key_hint(value),
        description=spec.description,
        is_active=spec.is_active,
        expires_at_ms=spec.expires_at_ms,
        team_id=team_id,
        customer_id=customer_id,
        calendar_aligned=spec.calendar_aligned,
        created_ms=now_ms,
        updated_ms=now_ms,
    )
    _write_key(connection, record)
    prefix = f"{path}." if path else ""
    configs = _sync_configs(store, connection, record, spec.provider_configs, prefix)
    owner = _owner(record)
    set_caps(store, connection, owner, budgets=spec.budgets, rate_limit=spec.rate_limit, rate_limit_given=True, path=path)
    return replace(record, value=value, provider_configs=configs)


def update_virtual_key(store: ConfigStore, key_id: str, patch: VirtualKeyPatch) -> VirtualKeyRecord:
    """Change a virtual key; what was spent stays unless `reset_budget_usage`. Raises NotFound, UserError, Conflict."""
    with store.editing("update", "virtual_key", key_id) as edit:
        return patch_virtual_key(store, edit.connection, key_id, patch)


def patch_virtual_key(store: ConfigStore, connection: Connection, key_id: str, patch: VirtualKeyPatch) -> VirtualKeyRecord:
    """As `update_virtual_key`, inside a transaction."""
    before = _key(connection, key_id)
    if patch.value is not None and not _is_present_value(patch.value.written, before):
        raise UserError("value: cannot be chosen here; rotate the key to give it a new one")
    after = _patched(store, connection, before, patch)
    if after.name != before.name and read.virtual_key(connection, after.name) is not None:
        raise Conflict(f"there is already a virtual key named {after.name!r}; choose another name")
    _write_key(connection, after)
    configs = after.provider_configs
    if patch.provider_configs is not None:
        configs = _sync_configs(store, connection, after, patch.provider_configs, "")
    elif after.name != before.name:
        for config in configs:
            set_caps(store, connection, _config_owner(after, config))
    if after.name != before.name:
        refresh_model_caps(store, connection, after)
    set_caps(
        store,
        connection,
        _owner(after),
        budgets=patch.budgets,
        rate_limit=patch.rate_limit,
        rate_limit_given=patch.given("rate_limit"),
        realign=patch.calendar_aligned is not None and patch.calendar_aligned != before.calendar_aligned,
    )
    if patch.reset_budget_usage:
        reset_money(connection, Scope.VIRTUAL_KEY, after.id, "reset_budget_usage")
        for config in configs:
            reset_money(connection, Scope.PROVIDER_CONFIG, config.id, "reset_budget_usage")
        reset_model_caps(connection, after.id, "reset_budget_usage")
    return replace(after, provider_configs=configs)


def rotate_virtual_key(store: ConfigStore, key_id: str, *, overlap_ms: int = 0) -> VirtualKeyRecord:
    """Give a virtual key a new value. The record carries it.

    The old value stops at once, or after `overlap_ms`; one of an earlier rotation stops at once. Raises NotFound.
    """
    with store.editing("rotate", "virtual_key", key_id) as edit:
        connection = edit.connection
        before = _key(connection, key_id)
        now_ms = store.clock.now_ms()
        value = new_key_value(store.entropy)
        after = _with_value(store, before, value, now_ms)
        if overlap_ms > 0:
            after = replace(after, previous_hash=before.value_hash, previous_until_ms=now_ms + overlap_ms)
        _write_key(connection, after)
        return replace(after, value=value)


def end_overlap(store: ConfigStore, key_id: str) -> VirtualKeyRecord:
    """The value before the last rotation stops now, whatever was promised of it. Raises NotFound, also when there is none."""
    with store.editing("end overlap", "virtual_key", key_id) as edit:
        before = _key(edit.connection, key_id)
        if not before.has_previous(store.clock.now_ms()):
            raise NotFound(f"no earlier value of the virtual key {before.name!r} is in force")
        after = replace(before, previous_hash=None, previous_until_ms=None, updated_ms=store.clock.now_ms())
        _write_key(edit.connection, after)
        return after


def delete_virtual_key(store: ConfigStore, key_id: str) -> None:
    """Delete a virtual key with its provider configs, model configs, run credentials and caps. Raises NotFound."""
    with store.editing("delete", "virtual_key", key_id) as edit:
        remove_virtual_key(edit.connection, _key(edit.connection, key_id))


def remove_virtual_key(connection: Connection, record: VirtualKeyRecord) -> None:
    """As `delete_virtual_key`, inside a transaction."""
    for (run_id,) in connection.execute("SELECT id FROM run_credentials WHERE virtual_key_id = ?", (record.id,)):
        drop_caps(connection, Scope.RUN, run_id)
    for config in record.provider_configs:
        drop_caps(connection, Scope.PROVIDER_CONFIG, config.id)
    remove_model_configs(connection, key_id=record.id)
    drop_caps(connection, Scope.VIRTUAL_KEY, record.id)
    drop_routing_rules(connection, "virtual_key", record.id)
    drop_overrides_of(connection, virtual_key_id=record.id)
    for statement in (
        "DELETE FROM run_credentials WHERE virtual_key_id = ?",
        "DELETE FROM provider_configs WHERE virtual_key_id = ?",
        "DELETE FROM virtual_keys WHERE id = ?",
    ):
        connection.execute(statement, (record.id,))


def replace_virtual_key(
    store: ConfigStore, connection: Connection, before: VirtualKeyRecord, spec: VirtualKeySpec, *, value: str | None, path: str
) -> VirtualKeyRecord:
    """Bring a key to what a file says, keeping its id, what was spent, and its value unless the file names another."""
    now_ms = store.clock.now_ms()
    team_id, customer_id = _owner_ids(connection, spec.team_id, spec.customer_id)
    after = replace(
        before,
        name=spec.name,
        description=spec.description,
        is_active=spec.is_active,
        expires_at_ms=spec.expires_at_ms,
        team_id=team_id,
        customer_id=customer_id,
        calendar_aligned=spec.calendar_aligned,
        updated_ms=now_ms,
    )
    if value is not None and not hmac.compare_digest(hash_key_value(value), before.value_hash):
        _refuse_doubles(connection, "", "", hash_key_value(value))
        after = _with_value(store, after, value, now_ms)
    _write_key(connection, after)
    configs = _sync_configs(store, connection, after, spec.provider_configs, f"{path}.")
    if after.name != before.name:
        refresh_model_caps(store, connection, after)
    set_caps(store, connection, _owner(after), budgets=spec.budgets, rate_limit=spec.rate_limit, rate_limit_given=True, path=path)
    return replace(after, provider_configs=configs)


def _with_value(store: ConfigStore, record: VirtualKeyRecord, value: str, now_ms: int) -> VirtualKeyRecord:
    """The key with another value, and none before it."""
    return replace(
        record,
        value=None if store.vault.is_sealing else value,
        value_hash=hash_key_value(value),
        hint=key_hint(value),
        updated_ms=now_ms,
        previous_hash=None,
        previous_until_ms=None,
    )


def _literal_value(spec: VirtualKeySpec) -> str | None:
    if spec.value is None:
        return None
    if spec.value.is_reference:
        raise UserError("value: env.NAME and file:PATH work in config.json only; leave the value out, and one is made")
    try:
        return check_key_value(spec.value.written)
    except ValueError as error:
        raise UserError(f"value: {error}") from None


def _is_present_value(written: str, record: VirtualKeyRecord) -> bool:
    return written in ("", record.hint) or hmac.compare_digest(hash_key_value(written), record.value_hash)


def _key(connection: Connection, key_id: str) -> VirtualKeyRecord:
    record = read.virtual_key(connection, key_id)
    if record is None:
        raise NotFound(f"there is no virtual key {key_id!r}")
    return record


def _refuse_doubles(connection: Connection, key_id: str, name: str, value_hash: str) -> None:
    if name and connection.execute("SELECT 1 FROM virtual_keys WHERE name = ?", (name,)):
        raise Conflict(f"there is already a virtual key named {name!r}; choose another name")
    if key_id and connection.execute("SELECT 1 FROM virtual_keys WHERE id = ?", (key_id,)):
        raise Conflict(f"there is already a virtual key with the id {key_id!r}; choose another, or leave it out")
    if read.is_value_taken(connection, value_hash):
        raise Conflict("another virtual key has this value; choose another, or leave it out")


def _owner_ids(connection: Connection, team_id: str | None, customer_id: str | None) -> tuple[str | None, str | None]:
    if team_id and customer_id:
        raise UserError("a virtual key belongs to a team or to a customer, not to both: leave out team_id or customer_id")
    if team_id:
        if (team := read.team(connection, team_id)) is None:
            raise UserError(f"team_id: there is no team {team_id!r}")
        return team.id, None
    if customer_id:
        if (customer := read.customer(connection, customer_id)) is None:
            raise UserError(f"customer_id: there is no customer {customer_id!r}")
        return None, customer.id
    return None, None


def _patched(store: ConfigStore, connection: Connection, before: VirtualKeyRecord, patch: VirtualKeyPatch) -> VirtualKeyRecord:
    team_id = (patch.team_id or None) if patch.given("team_id") else before.team_id
    customer_id = (patch.customer_id or None) if patch.given("customer_id") else before.customer_id
    if patch.team_id and not patch.given("customer_id"):
        customer_id = None  # moving a key to a team takes it from its customer, and the other way round
    if patch.customer_id and not patch.given("team_id"):
        team_id = None
    team_id, customer_id = _owner_ids(connection, team_id, customer_id)
    expires_at_ms = before.expires_at_ms
    if patch.given("expires_at"):
        expires_at_ms = VirtualKeySpec(name="x", expires_at=patch.expires_at).expires_at_ms
    return replace(
        before,
        name=patch.name or before.name,
        description=before.description if patch.description is None else patch.description,
        is_active=before.is_active if patch.is_active is None else patch.is_active,
        expires_at_ms=expires_at_ms,
        team_id=team_id,
        customer_id=customer_id,
        calendar_aligned=before.calendar_aligned if patch.calendar_aligned is None else patch.calendar_aligned,
        updated_ms=store.clock.now_ms(),
    )


def _write_key(connection: Connection, record: VirtualKeyRecord) -> None:
    connection.execute(
        "INSERT INTO virtual_keys (id, name, description, value, value_hash, hint, is_active, expires_at_ms, team_id, "
        "customer_id, calendar_aligned, created_ms, updated_ms, previous_hash, previous_until_ms) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET name = excluded.name, description = excluded.description, value = excluded.value, "
        "value_hash = excluded.value_hash, hint = excluded.hint, is_active = excluded.is_active, "
        "expires_at_ms = excluded.expires_at_ms, team_id = excluded.team_id, customer_id = excluded.customer_id, "
        "calendar_aligned = excluded.calendar_aligned, updated_ms = excluded.updated_ms, "
        "previous_hash = excluded.previous_hash, previous_until_ms = excluded.previous_until_ms",
        (
            record.id,
            record.name,
            record.description,
            record.value,
            record.value_hash,
            record.hint,
            int(record.is_active),
            record.expires_at_ms,
            record.team_id,
            record.customer_id,
            int(record.calendar_aligned),
            record.created_ms,
            record.updated_ms,
            record.previous_hash,
            record.previous_until_ms,
        ),
    )


def _owner(record: VirtualKeyRecord) -> Owner:
    return Owner(Scope.VIRTUAL_KEY, record.id, record.name, record.calendar_aligned)


def _config_owner(key: VirtualKeyRecord, config: ProviderConfigRecord) -> Owner:
    return Owner(Scope.PROVIDER_CONFIG, config.id, f"{key.name} at {config.provider}", config.calendar_aligned)


def _sync_configs(
    store: ConfigStore, connection: Connection, key: VirtualKeyRecord, specs: Sequence[ProviderConfigSpec], prefix: str
) -> tuple[ProviderConfigRecord, ...]:
    """Bring a key's provider configs to the desired set: matched by id, else by provider; absent ones are deleted."""
    left = list(read.virtual_keys(connection, [key.id])[0].provider_configs)
    gone = {config.provider for config in left} - {spec.provider for spec in specs}
    wanted: list[tuple[ProviderConfigSpec, ProviderConfigRecord | None]] = []
    for spec in specs:
        before = next((config for config in left if config.id == spec.id), None)
        if before is None and spec.id is None:
            before = next((config for config in left if config.provider == spec.provider), None)
        if before is not None:
            left.remove(before)
        wanted.append((spec, before))
    for config in left:
        drop_caps(connection, Scope.PROVIDER_CONFIG, config.id)
        connection.execute("DELETE FROM provider_configs WHERE id = ?", (config.id,))
    made = []
    for position, (spec, before) in enumerate(wanted):
        path = f"{prefix}provider_configs[{position}]"
        config = _config_record(store, connection, key, spec, before, path)
        _write_config(connection, config, position)
        set_caps(
            store,
            connection,
            _config_owner(key, config),
            budgets=spec.budgets if before is None or spec.given("budgets") else None,
            rate_limit=spec.rate_limit,
            rate_limit_given=before is None or spec.given("rate_limit"),
            realign=before is not None and before.calendar_aligned != config.calendar_aligned,
            path=path,
        )
        made.append(config)
    sync_model_budgets(store, connection, key, specs, gone, prefix)
    return tuple(made)


def _config_record(
    store: ConfigStore,
    connection: Connection,
    key: VirtualKeyRecord,
    spec: ProviderConfigSpec,
    before: ProviderConfigRecord | None,
    path: str,
) -> ProviderConfigRecord:
    known = known_providers(store, connection)
    if spec.provider != ANY and spec.provider not in known:
        raise UserError(f"{path}.provider: invalid provider name {spec.provider!r}; {nearest(spec.provider, known)}")
    _check_key_ids(connection, spec, path)
    if before is None and spec.id and connection.execute("SELECT 1 FROM provider_configs WHERE id = ?", (spec.id,)):
        raise Conflict(f"{path}.id: {spec.id!r} is another virtual key's; give this one an id of its own, or none")
    said = spec.model_fields_set
    return ProviderConfigRecord(
        id=before.id if before else spec.id or store.ids.new(),
        virtual_key_id=key.id,
        provider=spec.provider,
        weight=spec.weight if before is None or "weight" in said else before.weight,
        allowed_models=spec.allowed_models if before is None or "allowed_models" in said else before.allowed_models,
        blacklisted_models=(
            spec.blacklisted_models if before is None or "blacklisted_models" in said else before.blacklisted_models
        ),
        key_ids=spec.key_ids if before is None or "key_ids" in said else before.key_ids,
        calendar_aligned=_config_calendar(key, spec, before),
    )


def _config_calendar(key: VirtualKeyRecord, spec: ProviderConfigSpec, before: ProviderConfigRecord | None) -> bool:
    if spec.given("calendar_aligned"):
        return spec.calendar_aligned
    return before.calendar_aligned if before else key.calendar_aligned


def _check_key_ids(connection: Connection, spec: ProviderConfigSpec, path: str) -> None:
    if spec.provider == ANY or spec.key_ids in ((), (ANY,)):
        return
    known = [
        word
        for row in connection.execute("SELECT id, name FROM provider_keys WHERE provider = ?", (spec.provider,))
        for word in row
    ]
    for index, name in enumerate(spec.key_ids):
        if name not in known:
            hint = nearest(name, known) if known else "that provider has no keys yet"
            raise UserError(f"{path}.key_ids[{index}]: {spec.provider} has no key {name!r}; {hint}")


def _write_config(connection: Connection, config: ProviderConfigRecord, position: int) -> None:
    connection.execute(
        "INSERT INTO provider_configs (id, virtual_key_id, position, provider, weight, allowed_models, blacklisted_models, "
        "key_ids, calendar_aligned) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
        "position = excluded.position, provider = excluded.provider, weight = excluded.weight, "
        "allowed_models = excluded.allowed_models, blacklisted_models = excluded.blacklisted_models, "
        "key_ids = excluded.key_ids, calendar_aligned = excluded.calendar_aligned",
        (
            config.id,
            config.virtual_key_id,
            position,
            config.provider,
            config.weight,
            names_text(config.allowed_models),
            names_text(config.blacklisted_models),
            names_text(config.key_ids),
            int(config.calendar_aligned),
        ),
    )
