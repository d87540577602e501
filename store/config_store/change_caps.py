"""Changes of caps inside a transaction: an owner's whole set, single budgets, reset and top-up. Nothing spent is ever lost."""

from collections.abc import Sequence
from dataclasses import replace

from store.config_store import read
from store.config_store.make_caps import Owner, aligned, checked, default_name, money_cap, money_caps, rate_caps, renamed
from store.config_store.model_owners import scope_of, stored_owner, write_model_config
from store.config_store.problems import nearest
from store.config_store.read_models import model_config, model_config_at
from store.config_store.records import ModelConfigRecord
from store.config_store.specs import BudgetPatch, BudgetRowSpec, BudgetSpec, RateLimitSpec
from store.config_store.store import CHANGE_THE_FILE, ConfigStore
from store.database import Connection
from store.errors import Conflict, NotFound, UserError
from store.ledger.caps import cap_states, delete_cap, put_cap, reset_cap, sync_caps, top_up
from store.ledger.types import Cap, Enforcement, Scope, Unit
from store.money import nanos_from_usd, usd_from_nanos


def set_caps(
    store: ConfigStore,
    connection: Connection,
    owner: Owner,
    *,
    budgets: Sequence[BudgetSpec] | None = None,
    rate_limit: RateLimitSpec | None = None,
    rate_limit_given: bool = False,
    realign: bool = False,
    path: str = "",
) -> None:
    """Bring an owner's caps to the desired set. None for budgets, or a rate limit not given: those stay as they are."""
    existing = read.caps_of(connection, owner.scope, owner.id)
    now_ms = store.clock.now_ms()
    prefix = f"{path}." if path else ""
    keep_money = [cap for cap in existing if cap.unit is Unit.USD]
    keep_rates = [cap for cap in existing if cap.unit is not Unit.USD]
    if realign:
        keep_money, keep_rates = aligned(owner, keep_money), aligned(owner, keep_rates)
    money = keep_money if budgets is None else money_caps(owner, budgets, keep_money, now_ms, f"{prefix}budgets")
    rates = rate_caps(owner, rate_limit, keep_rates, now_ms, f"{prefix}rate_limit") if rate_limit_given else keep_rates
    desired = renamed(owner, [*money, *rates])
    for cap in desired:
        _belongs_here(connection, cap, owner)
    if not desired and not existing:
        return
    try:
        sync_caps(connection, owner.scope, owner.id, desired, store.ids)
    except ValueError as error:
        raise UserError(f"{path}: {error}" if path else str(error)) from None


def drop_caps(connection: Connection, scope: Scope, scope_id: str) -> None:
    """Delete every cap of an owner; each stays as a tombstone until its holds settle."""
    for cap in read.caps_of(connection, scope, scope_id):
        delete_cap(connection, cap.id)


def reset_money(connection: Connection, scope: Scope, scope_id: str, reason: str) -> None:
    """Start an owner's budgets at nothing spent, by a row with a reason."""
    for cap in read.caps_of(connection, scope, scope_id):
        if cap.unit is Unit.USD:
            reset_cap(connection, cap.id, reason)


def create_budget(store: ConfigStore, spec: BudgetRowSpec) -> Cap:
    """A budget on its own, attached to whom it names. Raises UserError, NotFound, Conflict."""
    with store.editing("create", "budget") as edit:
        cap = insert_budget(store, edit.connection, spec)
        edit.id = cap.id
        return cap


def insert_budget(store: ConfigStore, connection: Connection, spec: BudgetRowSpec) -> Cap:
    """As `create_budget`, inside a transaction."""
    owner = find_owner(store, connection, Scope(spec.scope), spec.scope_id)
    cap = money_cap(owner, spec, None, store.clock.now_ms(), "budget")
    if spec.id is None:
        cap = replace(cap, id=store.ids.new())  # a stable id could be that of a deleted budget whose rows live on
    _belongs_here(connection, cap, owner)
    for other in read.caps_of(connection, owner.scope, owner.id):
        if other.id == cap.id:
            raise Conflict(f"there is already a budget with the id {cap.id!r}; change that one")
        if other.unit is Unit.USD and _same_window(other, cap):
            raise Conflict(
                f"{owner.scope.value} {owner.name!r} already has the budget {other.name!r} "
                f"{'every ' + other.window if other.window else 'without a window'}; change that one"
            )
    _put(connection, cap, "created")
    return cap


def update_budget(store: ConfigStore, cap_id: str, patch: BudgetPatch) -> Cap:
    """Change a budget; what was spent stays. Raises NotFound, UserError, Conflict."""
    with store.editing("update", "budget", cap_id, reason=patch.reason) as edit:
        connection = edit.connection
        before = find_budget(connection, cap_id)
        window = patch.reset_duration if patch.given("reset_duration") else before.window
        owner = Owner(before.scope, before.scope_id, before.scope_name)
        default_now = before.name == default_name(owner, Unit.USD, before.window)
        after = replace(
            before,
            name=patch.name or (default_name(owner, Unit.USD, window) if default_now else before.name),
            limit=before.limit if patch.max_limit is None else nanos_from_usd(patch.max_limit),
            window=window,
            calendar_aligned=before.calendar_aligned if patch.calendar_aligned is None else patch.calendar_aligned,
            timezone=patch.timezone or before.timezone,
            quarter_start_month=patch.reset_config.quarter_start_month if patch.reset_config else before.quarter_start_month,
            enforcement=Enforcement(patch.enforcement) if patch.enforcement else before.enforcement,
            strict=before.strict if patch.strict is None else patch.strict,
            carry_over=before.carry_over if patch.carry_over is None else patch.carry_over,
        )
        checked(after, "budget")
        for other in read.caps_of(connection, before.scope, before.scope_id):
            if other.id != cap_id and other.unit is Unit.USD and _same_window(other, after):
                raise Conflict(f"the budget {other.name!r} already resets every {other.window or 'never'}; change that one")
        _put(connection, after, patch.reason or "changed")
        return after


def delete_budget(store: ConfigStore, cap_id: str) -> None:
    """Delete a budget. Raises NotFound."""
    with store.editing("delete", "budget", cap_id) as edit:
        find_budget(edit.connection, cap_id)
        delete_cap(edit.connection, cap_id)


def reset_budget(store: ConfigStore, cap_id: str, reason: str) -> None:
    """Start a budget at nothing spent, by a row with a reason; holds in flight stay. Raises NotFound."""
    with store.editing("reset", "budget", cap_id, reason=reason, spending=True) as edit:
        find_budget(edit.connection, cap_id)
        (before,) = cap_states(edit.connection, edit.connection.now_ms(), [cap_id])
        reset_cap(edit.connection, cap_id, reason or "reset by hand")
        edit.details = {"amount": usd_from_nanos(before.used)}


def top_up_budget(store: ConfigStore, cap_id: str, amount_nanos: int, reason: str) -> None:
    """Add to a budget, by a row with a reason: for good when it is prepaid, else for the window that runs now.

    Raises NotFound, UserError; Conflict for a prepaid one in file-only mode, where the file says what was paid.
    """
    if amount_nanos <= 0:
        raise UserError("amount: must be more than nothing, such as 5.00")
    with store.editing("topup", "budget", cap_id, reason=reason, spending=True) as edit:
        connection = edit.connection
        budget = find_budget(connection, cap_id)
        if budget.window is None and store.file_only and budget.scope is not Scope.RUN:
            raise Conflict(f"{CHANGE_THE_FILE} (max_limit of {budget.name!r})")
        try:
            top_up(connection, cap_id, amount_nanos, reason or "topped up by hand")
            edit.details = {"amount": usd_from_nanos(amount_nanos)}
        except ValueError as error:
            raise UserError(f"amount: {error}") from None


def find_owner(store: ConfigStore, connection: Connection, scope: Scope, scope_id: str) -> Owner:
    """Whom a scope and an id (or the name of a key, team or customer) mean. Raises NotFound, UserError."""
    if scope is Scope.VIRTUAL_KEY:
        if (key := read.virtual_key(connection, scope_id)) is None:
            raise NotFound(f"scope_id: there is no virtual key {scope_id!r}")
        return Owner(scope, key.id, key.name, key.calendar_aligned)
    if scope in (Scope.TEAM, Scope.CUSTOMER):
        group = read.team(connection, scope_id) if scope is Scope.TEAM else read.customer(connection, scope_id)
        if group is None:
            raise NotFound(f"scope_id: there is no {scope.value} {scope_id!r}")
        return Owner(scope, group.id, group.name, group.calendar_aligned)
    if scope is Scope.PROVIDER_CONFIG:
        found = connection.execute("SELECT virtual_key_id FROM provider_configs WHERE id = ?", (scope_id,))
        if not found:
            raise NotFound(f"scope_id: there is no provider config {scope_id!r}")
        key = read.virtual_keys(connection, [found[0][0]])[0]
        config = next(config for config in key.provider_configs if config.id == scope_id)
        return Owner(scope, config.id, f"{key.name} at {config.provider}", config.calendar_aligned)
    if scope is Scope.PROVIDER:
        known = known_providers(store, connection)
        if scope_id not in known:
            raise NotFound(f"scope_id: there is no provider {scope_id!r}; {nearest(scope_id, known)}")
        return Owner(scope, scope_id, scope_id)
    if scope in (Scope.MODEL, Scope.VIRTUAL_KEY_MODEL):
        return _model_owner(store, connection, scope, scope_id)
    raise UserError(f"scope: {scope.value} cannot carry a budget of its own here")


def _model_owner(store: ConfigStore, connection: Connection, scope: Scope, scope_id: str) -> Owner:
    """A model config by its id. `model` takes a model's name too; one that has no config yet gets it."""
    record = model_config(connection, scope_id)
    if record is not None and scope_of(record) is not scope:
        record = None
    if record is None and scope is Scope.MODEL:
        record = model_config_at(connection, "global", None, scope_id, None) or _new_model_config(store, connection, scope_id)
    if record is None:
        raise NotFound(f"scope_id: there is no model config {scope_id!r}")
    return stored_owner(connection, record)


def _new_model_config(store: ConfigStore, connection: Connection, model_name: str) -> ModelConfigRecord | None:
    if model_config(connection, model_name) is not None:
        return None  # the id of one inside a virtual key
    now_ms = store.clock.now_ms()
    record = ModelConfigRecord(id=model_name, model_name=model_name, created_ms=now_ms, updated_ms=now_ms)
    with store.audited(connection, "create", "model_config") as edit:
        write_model_config(connection, record)
        edit.id = record.id
    return record


def known_providers(store: ConfigStore, connection: Connection) -> tuple[str, ...]:
    """Names of every provider that can be called: built-in ones and configured ones."""
    configured = [row[0] for row in connection.execute("SELECT name FROM providers")]
    return tuple(sorted({*store.builtin, *configured}))


def find_budget(connection: Connection, cap_id: str) -> Cap:
    """The budget with this id. Raises NotFound."""
    cap = read.cap(connection, cap_id)
    if cap is None or cap.unit is not Unit.USD:
        raise NotFound(f"there is no budget {cap_id!r}")
    return cap


def _put(connection: Connection, cap: Cap, reason: str) -> None:
    try:
        put_cap(connection, cap, reason=reason)
    except ValueError as error:
        raise UserError(f"budget: {error}") from None


def _same_window(one: Cap, other: Cap) -> bool:
    return (one.window, one.calendar_aligned, one.timezone) == (other.window, other.calendar_aligned, other.timezone)


def _belongs_here(connection: Connection, cap: Cap, owner: Owner) -> None:
    found = connection.execute("SELECT scope, scope_id FROM caps WHERE id = ?", (cap.id,))
    if found and (found[0][0], found[0][1]) != (owner.scope.value, owner.id):
        raise Conflict(f"the budget id {cap.id!r} is another owner's; give this one an id of its own, or none")
