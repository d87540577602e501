"""Changes of model configs: caps on models for everybody, or inside one virtual key. What was spent is never lost."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from store.config_store import read
from store.config_store.change_caps import drop_caps, known_providers, reset_money, set_caps
from store.config_store.model_owners import owner_of, scope_of, stored_owner, write_model_config
from store.config_store.problems import nearest
from store.config_store.read_models import model_config, model_config_at, model_configs_of
from store.config_store.records import ModelConfigRecord, VirtualKeyRecord
from store.config_store.snapshot import ANY
from store.config_store.specs import ModelBudgetSpec, ProviderConfigSpec
from store.config_store.specs_models import ModelConfigPatch, ModelConfigSpec
from store.config_store.store import ConfigStore
from store.database import Connection
from store.errors import Conflict, NotFound, UserError


def create_model_config(store: ConfigStore, spec: ModelConfigSpec) -> ModelConfigRecord:
    """Make a model config with its caps. Raises UserError, Conflict (there is one for the same calls already)."""
    with store.editing("create", "model_config") as edit:
        record = put_model_config(store, edit.connection, spec, may_exist=False)
        edit.id = record.id
        return record


def update_model_config(store: ConfigStore, config_id: str, patch: ModelConfigPatch) -> ModelConfigRecord:
    """Change a model config's caps; what was spent stays unless `reset_budget_usage`. Raises NotFound, UserError, Conflict."""
    with store.editing("update", "model_config", config_id) as edit:
        connection = edit.connection
        before = _get(connection, config_id)
        _same_target(connection, before, patch)
        aligned = before.calendar_aligned if patch.calendar_aligned is None else patch.calendar_aligned
        after = replace(before, calendar_aligned=aligned, updated_ms=store.clock.now_ms())
        write_model_config(connection, after)
        set_caps(
            store,
            connection,
            stored_owner(connection, after),
            budgets=patch.budgets,
            rate_limit=patch.rate_limit,
            rate_limit_given=patch.given("rate_limit"),
            realign=aligned != before.calendar_aligned,
        )
        if patch.reset_budget_usage:
            reset_money(connection, scope_of(after), after.id, "reset_budget_usage")
        return after


def delete_model_config(store: ConfigStore, config_id: str) -> None:
    """Delete a model config; its caps stay as tombstones until their holds settle. Raises NotFound."""
    with store.editing("delete", "model_config", config_id) as edit:
        remove_model_config(edit.connection, _get(edit.connection, config_id))


def remove_model_config(connection: Connection, record: ModelConfigRecord) -> None:
    """As `delete_model_config`, inside a transaction."""
    drop_caps(connection, scope_of(record), record.id)
    connection.execute("DELETE FROM model_configs WHERE id = ?", (record.id,))


def put_model_config(
    store: ConfigStore, connection: Connection, spec: ModelConfigSpec, *, may_exist: bool = True, path: str = ""
) -> ModelConfigRecord:
    """Bring a model config and its caps to what is written, inside a transaction; it is known by its id, or by whom it binds.

    Raises UserError, naming the place; Conflict when it exists and must not, or when its id is another's.
    """
    prefix = f"{path}." if path else ""
    _known_provider(store, connection, spec.provider, prefix)
    key = _key(connection, spec.scope_id, prefix)
    scope_id = key.id if key else None
    before = model_config_at(connection, spec.scope, scope_id, spec.model_name, spec.provider)
    if before is not None and not may_exist:
        raise Conflict(
            f"there is already a model config for {owner_of(before, key.name if key else '').name}: change {before.id!r}"
        )
    if before is not None and spec.id not in (None, before.id):
        raise Conflict(f"{prefix}id: these calls have the model config {before.id!r} already; use its id, or none")
    if before is None and spec.id and model_config(connection, spec.id) is not None:
        raise Conflict(f"{prefix}id: {spec.id!r} is another model config's; give this one an id of its own, or none")
    now_ms = store.clock.now_ms()
    record = ModelConfigRecord(
        id=before.id if before else spec.id or _new_id(store, connection, spec),
        model_name=spec.model_name,
        provider=spec.provider,
        scope=spec.scope,
        scope_id=scope_id,
        calendar_aligned=spec.calendar_aligned,
        created_ms=before.created_ms if before else now_ms,
        updated_ms=now_ms,
    )
    write_model_config(connection, record)
    set_caps(
        store,
        connection,
        owner_of(record, key.name if key else ""),
        budgets=spec.budgets,
        rate_limit=spec.rate_limit,
        rate_limit_given=True,
        path=path,
    )
    return record


def sync_model_budgets(
    store: ConfigStore, connection: Connection, key: VirtualKeyRecord, specs: Sequence[ProviderConfigSpec], gone: Collection[str],
    prefix: str = "",
) -> None:  # fmt: skip
    """Bring the `model_budgets` that a key's provider configs name to the desired set; configs that name none leave theirs.

    `gone`: providers that no config of the key names any more; their model configs go with them. Raises UserError.
    """
    present = model_configs_of(connection, [key.id]).get(key.id, ())
    for record in present:
        if (record.provider or ANY) in gone:
            remove_model_config(connection, record)
    said = dict.fromkeys(spec.provider for spec in specs if spec.given("model_budgets"))
    for provider in said:
        wanted: dict[str, tuple[ModelBudgetSpec, str]] = {}
        for index, spec in enumerate(specs):
            for number, budget in enumerate(spec.model_budgets if spec.provider == provider else ()):
                place = f"{prefix}provider_configs[{index}].model_budgets[{number}]"
                if budget.model_name in wanted:
                    raise UserError(f"{place}: the model {budget.model_name!r} stands there twice; keep one of them")
                wanted[budget.model_name] = budget, place
        for record in present:
            if (record.provider or ANY) == provider and record.model_name not in wanted:
                remove_model_config(connection, record)
        for budget, place in wanted.values():
            _put_model_budget(store, connection, key, provider, budget, place)


def refresh_model_caps(store: ConfigStore, connection: Connection, key: VirtualKeyRecord) -> None:
    """Let the caps of a key's model configs go by the key's present name."""
    for record in model_configs_of(connection, [key.id]).get(key.id, ()):
        set_caps(store, connection, owner_of(record, key.name))


def reset_model_caps(connection: Connection, key_id: str, reason: str) -> None:
    """Start the budgets of a key's model configs at nothing spent."""
    for record in model_configs_of(connection, [key_id]).get(key_id, ()):
        reset_money(connection, scope_of(record), record.id, reason)


def remove_model_configs(connection: Connection, *, key_id: str | None = None, provider: str | None = None) -> None:
    """Delete the model configs of a virtual key, or those of a provider, that goes."""
    for record in read.model_configs(connection):
        if (key_id is not None and record.scope_id == key_id) or (provider is not None and record.provider == provider):
            remove_model_config(connection, record)


def _put_model_budget(
    store: ConfigStore, connection: Connection, key: VirtualKeyRecord, provider: str, spec: ModelBudgetSpec, path: str
) -> None:
    """Fields that the budget does not name stay as they are, as in a provider config."""
    at = None if provider == ANY else provider
    before = model_config_at(connection, "virtual_key", key.id, spec.model_name, at)
    if before is not None and spec.id in (None, before.id):
        aligned = spec.calendar_aligned if spec.given("calendar_aligned") else before.calendar_aligned
        after = replace(before, calendar_aligned=aligned, updated_ms=store.clock.now_ms())
        write_model_config(connection, after)
        set_caps(
            store,
            connection,
            owner_of(after, key.name),
            budgets=spec.budgets if spec.given("budgets") else None,
            rate_limit=spec.rate_limit,
            rate_limit_given=spec.given("rate_limit"),
            realign=aligned != before.calendar_aligned,
            path=path,
        )
        return
    whole = ModelConfigSpec(
        id=spec.id,
        model_name=spec.model_name,
        provider=at,
        scope="virtual_key",
        scope_id=key.id,
        budgets=spec.budgets,
        rate_limit=spec.rate_limit,
        calendar_aligned=spec.calendar_aligned if spec.given("calendar_aligned") else key.calendar_aligned,
    )
    put_model_config(store, connection, whole, path=path)


def _new_id(store: ConfigStore, connection: Connection, spec: ModelConfigSpec) -> str:
    """A cap on a model of whatever provider is found by the model's name, as in `scope: "model", scope_id: "gpt-4o"`."""
    named = spec.known_id
    return named if named is not None and model_config(connection, named) is None else store.ids.new()


def _known_provider(store: ConfigStore, connection: Connection, provider: str | None, prefix: str) -> None:
    known = known_providers(store, connection)
    if provider is not None and provider not in known:
        raise UserError(f"{prefix}provider: invalid provider name {provider!r}; {nearest(provider, known)}")


def _key(connection: Connection, scope_id: str | None, prefix: str) -> VirtualKeyRecord | None:
    if scope_id is None:
        return None
    key = read.virtual_key(connection, scope_id)
    if key is None:
        raise UserError(f"{prefix}scope_id: there is no virtual key {scope_id!r}")
    return key


def _get(connection: Connection, config_id: str) -> ModelConfigRecord:
    record = model_config(connection, config_id)
    if record is None:
        raise NotFound(f"there is no model config {config_id!r}")
    return record


def _same_target(connection: Connection, before: ModelConfigRecord, patch: ModelConfigPatch) -> None:
    for name in ("model_name", "provider", "scope", "scope_id"):
        wanted, now = getattr(patch, name), getattr(before, name)
        if name == "scope_id" and wanted is not None and (key := read.virtual_key(connection, wanted)) is not None:
            wanted = key.id
        if patch.given(name) and wanted != now:
            raise UserError(f"{name}: cannot be changed here; make another model config, then delete this one")
