"""File-only mode: the governance is a picture of config.json in memory, made anew by every process; the ledger is kept.

One process (the supervisor) applies the file to the ledger with `apply_file`; all others read with `open_file_only`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from store.clock import Clock, Ids
from store.config_store import read
from store.config_store.bootstrap import apply_plan, open_config_store
from store.config_store.change_caps import drop_caps
from store.config_store.file_audit import note_applied
from store.config_store.file_ledger import FileReport, check_place, claim, file_caps, put_caps, put_keys
from store.config_store.file_plan import FilePlan, read_plan
from store.config_store.model_owners import scope_of
from store.config_store.specs import ProviderConfigSpec
from store.config_store.stable_ids import with_stable_ids
from store.config_store.store import ConfigStore
from store.database import Connection, Database, bump_revision
from store.errors import StoreUnavailable
from store.ledger.rows import CAP_COLUMNS, cap_to_row
from store.ledger.types import Cap, Scope
from store.memory import MemoryDatabase
from store.settings import Settings

_TRIES = 5


def open_file_only(
    ledger: Database, settings: Settings, *, clock: Clock, ids: Ids, builtin: Mapping[str, str] | None = None
) -> ConfigStore:
    """The configuration of the file beside the migrated ledger it spends on, which has the caps. Reads only. Raises UserError."""
    with ledger.read() as connection:
        check_place(connection, ledger.name)
    return _picture(ledger, settings, None, clock=clock, ids=ids, builtin=builtin)


def apply_file(
    ledger: Database, settings: Settings, *, clock: Clock, ids: Ids, builtin: Mapping[str, str] | None = None
) -> tuple[ConfigStore, FileReport]:
    """As `open_file_only`, and the ledger's caps and keys are what the file says, in one transaction; what was spent stays.

    Caps are matched as everywhere: by id, then unit and window, then name. Raises UserError, naming the place in the file, with
    the ledger unchanged; StoreUnavailable.
    """
    for _ in range(_TRIES):
        with ledger.read() as connection:
            check_place(connection, ledger.name)
            before = file_caps(connection)
        store = _picture(ledger, settings, before, clock=clock, ids=ids, builtin=builtin)
        try:
            with store.database.read() as connection:
                wanted, keys = file_caps(connection), read.virtual_keys(connection)
            with ledger.write() as connection:
                # The picture took a while, and another node may have applied its file meanwhile: then it is made again.
                if file_caps(connection) == before:
                    claim(connection)
                    report = put_caps(connection, wanted)
                    if put_keys(connection, keys):
                        bump_revision(connection)
                    with store.database.read() as picture:
                        note_applied(store, connection, picture)
                    return store, report
        except BaseException:
            store.database.close()
            raise
        store.database.close()
    raise StoreUnavailable(f"the caps in {ledger.name} are being changed by somebody else all the time; try again")


def _picture(
    ledger: Database,
    settings: Settings,
    caps: Iterable[Cap] | None,
    *,
    clock: Clock,
    ids: Ids,
    builtin: Mapping[str, str] | None,
) -> ConfigStore:
    """The file in memory, with the caps that it makes of those that there are; with none at all for None."""
    plan = with_stable_ids(read_plan(settings))
    if caps is None:
        plan = _without_caps(plan)
    memory = MemoryDatabase(clock=clock)
    try:
        memory.migrate()
        store = open_config_store(memory, settings, clock=clock, ids=ids, builtin=builtin, seal=True)
        with store.changing() as connection:
            marks = ", ".join("?" * len(CAP_COLUMNS.split(", ")))
            connection.executemany(f"INSERT INTO caps ({CAP_COLUMNS}) VALUES ({marks})", [cap_to_row(cap, 0) for cap in caps or ()])
            apply_plan(store, connection, plan, settings)
            _drop_ownerless(connection, plan)
    except BaseException:
        memory.close()
        raise
    return ConfigStore(memory, clock, ids, store.vault, store.builtin, ledger_database=ledger)


def _without_caps(plan: FilePlan) -> FilePlan:
    bare: dict[str, Any] = {"budgets": (), "rate_limit": None}

    def bare_config(config: ProviderConfigSpec) -> ProviderConfigSpec:
        models = tuple(budget.model_copy(update=bare) for budget in config.model_budgets)
        return config.model_copy(update=bare | ({"model_budgets": models} if models else {}))

    return FilePlan(
        providers=plan.providers,
        model_configs=tuple(row.model_copy(update=bare) for row in plan.model_configs),
        routing_rules=plan.routing_rules,
        pricing_overrides=plan.pricing_overrides,
        customers=tuple(row.model_copy(update=bare) for row in plan.customers),
        teams=tuple(row.model_copy(update=bare) for row in plan.teams),
        virtual_keys=tuple(
            row.model_copy(update=bare | {"provider_configs": tuple(bare_config(config) for config in row.provider_configs)})
            for row in plan.virtual_keys
        ),
    )


def _drop_ownerless(connection: Connection, plan: FilePlan) -> None:
    """Caps of the ledger whose owner the file does not name any more."""
    keys = read.virtual_keys(connection)
    owners = {(Scope.VIRTUAL_KEY, key.id) for key in keys}
    owners |= {(Scope.PROVIDER_CONFIG, config.id) for key in keys for config in key.provider_configs}
    owners |= {(Scope.TEAM, team.id) for team in read.teams(connection)}
    owners |= {(Scope.CUSTOMER, customer.id) for customer in read.customers(connection)}
    owners |= {(group.scope, group.scope_id) for group in plan.wide_caps}
    owners |= {(scope_of(config), config.id) for config in read.model_configs(connection)}
    for scope, scope_id in read.caps_by_scope(connection).keys() - owners:
        drop_caps(connection, scope, scope_id)
