"""Seeds an empty store from config.json in one transaction; afterwards the store is the truth and the file's entries rest."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from store.clock import Clock, Ids
from store.config_store import read
from store.config_store.builtin import BUILTIN_PROVIDERS
from store.config_store.change_caps import find_owner, set_caps
from store.config_store.change_client import give_back_to_file
from store.config_store.change_groups import put_customer, put_team
from store.config_store.change_keys import insert_virtual_key, remove_virtual_key, replace_virtual_key
from store.config_store.change_models import put_model_config
from store.config_store.change_prices import known_pricing_override, put_pricing_override
from store.config_store.change_providers import put_provider
from store.config_store.change_routing import known_rule, put_routing_rule
from store.config_store.change_runs import DEFAULT_KEY_NAME
from store.config_store.client_config import ignored_fields, stored_client
from store.config_store.file_audit import documents_of, note_seeded
from store.config_store.file_ledger import holds_file_ledger
from store.config_store.file_plan import FilePlan, read_plan
from store.config_store.file_truth import file_truth
from store.config_store.meta import get_meta, set_meta
from store.config_store.protect import open_vault
from store.config_store.prune import Pruned, prune
from store.config_store.reach import reach_of
from store.config_store.records import VirtualKeyRecord
from store.config_store.specs import ProviderConfigSpec, VirtualKeySpec
from store.config_store.store import ConfigStore
from store.config_store.whole import Documents
from store.database import Connection, Database
from store.errors import UserError
from store.settings import Settings

_DEFAULT_KEY = "default_key"
_TABLES = ("providers", "virtual_keys", "teams", "customers", "model_configs", "routing_rules", "pricing_overrides")


@dataclass(frozen=True, slots=True)
class BootstrapReport:
    """What a start did with the file."""

    seeded: bool = False
    """The file's providers and governance are now in the store."""
    over_data: bool = False
    """They were applied to a store that had data."""
    ignored: tuple[str, ...] = ()
    """File entries that the store, which has data, goes before: named for the line that `serve` prints."""
    default_key_value: str | None = field(default=None, repr=False)
    """The value of the key `default`, when it was made just now."""
    removed_default: bool = False
    """The untouched key `default` of an earlier start gave way to the file."""
    warnings: tuple[str, ...] = ()
    """Sections of the file that are not implemented."""
    forced: bool = False
    """The file is the source of truth: it was applied although the store has data, and the rest of its sections deleted."""
    documents: tuple[Documents, Documents] | None = field(default=None, repr=False)
    """Everything before and after the file was applied."""
    left: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Section → names that were left in the store although the file's section is there and empty."""
    dry_run: bool = False
    """Nothing was done."""
    applied: str | None = None
    """File-only mode: what the file changed in the ledger, in words, perhaps none."""


def open_config_store(
    database: Database,
    settings: Settings,
    *,
    clock: Clock,
    ids: Ids,
    builtin: Mapping[str, str] | None = None,
    seal: bool = False,
) -> ConfigStore:
    """The store of a migrated database with the vault of `encryption_key`. Raises UserError for a wrong key.

    With `seal` a first key encrypts what stands in clear: at a start, when nobody else has the store open.
    Also for a database that is the ledger of file-only mode: what it knows of keys and caps is not all there is.
    """
    with database.read() as connection:
        if holds_file_ledger(connection):
            raise UserError(
                f"{database.name} is the ledger of a gateway with config_store.enabled false; name another place in config_store"
            )
    vault = open_vault(database, settings.secret(settings.encryption_key, "encryption_key"), seal=seal)
    reach = reach_of(settings, settings.environ)
    return ConfigStore(database, clock, ids, vault, builtin or BUILTIN_PROVIDERS, reach=reach, truth=file_truth(settings))


def bootstrap(
    database: Database,
    settings: Settings,
    *,
    clock: Clock,
    ids: Ids,
    reseed: bool = False,
    builtin: Mapping[str, str] | None = None,
) -> BootstrapReport:
    """Seed an empty store from the file; make the key `default` when nothing is configured anywhere.

    `reseed` applies the file to a store with data: entries of the file replace their namesakes (what was spent stays), all others
    are kept. Raises UserError, naming the place in the file; nothing is changed then.
    """
    store = open_config_store(database, settings, clock=clock, ids=ids, builtin=builtin, seal=True)
    return seed(store, settings, reseed=reseed)


def seed(store: ConfigStore, settings: Settings, *, reseed: bool = False, dry_run: bool = False) -> BootstrapReport:
    """As `bootstrap`, for a store that is open already. `dry_run`: only say what would be done.

    While the file is the source of truth it is applied every time, and what its sections do not name is deleted.
    """
    report = _seed(store, settings, reseed=reseed, dry_run=dry_run)
    with store.database.read() as connection:
        names = ignored_fields(stored_client(connection), settings.client.model_fields_set)
    return replace(report, ignored=(*report.ignored, f"client: {', '.join(names)}")) if names else report


def _seed(store: ConfigStore, settings: Settings, *, reseed: bool, dry_run: bool) -> BootstrapReport:
    plan = read_plan(settings)
    forced = bool(store.truth.kinds)
    with store.database.read() as connection:
        has_data = _has_data(connection)
        first_start = get_meta(connection, _DEFAULT_KEY) is None
    if has_data and not (reseed or forced):
        return BootstrapReport(ignored=tuple(_named_entries(settings)), warnings=settings.warnings)
    if plan.is_empty and not forced and not (reseed and settings.client.model_fields_set):
        value = _make_default(store) if first_start and not has_data and not dry_run else None
        return BootstrapReport(default_key_value=value, warnings=settings.warnings)
    try:
        with store.changing() as connection:
            if _has_data(connection) and not (reseed or forced):
                return BootstrapReport(ignored=tuple(_named_entries(settings)), warnings=settings.warnings)
            report = _apply(store, connection, plan, settings, reseed=reseed)
            if dry_run:
                raise _Rehearsed
    except _Rehearsed:
        return replace(report, dry_run=True, default_key_value=None)
    return report


class _Rehearsed(Exception):
    """Everything was done, and is undone by this."""


def _apply(store: ConfigStore, connection: Connection, plan: FilePlan, settings: Settings, *, reseed: bool) -> BootstrapReport:
    forced = bool(store.truth.kinds)
    before, over_data = documents_of(connection), _has_data(connection)
    # A file that names no key leaves the question of who may spend as it was: `default` stays, or is made.
    removed = bool(plan.virtual_keys) and _remove_default(connection, settings)
    apply_plan(store, connection, plan, settings)
    pruned = prune(store, connection, plan, settings, empty_too=reseed) if forced else Pruned()
    if reseed or forced:
        give_back_to_file(store, connection, settings)
    value = None
    if get_meta(connection, _DEFAULT_KEY) is None:
        made = not plan.virtual_keys and "virtual_key" not in store.truth.kinds
        value = _insert_default(store, connection) if made else None
        if value is None:
            set_meta(connection, _DEFAULT_KEY, "")
    note_seeded(store, connection, "apply" if forced else "reseed" if reseed else "seed", before)
    return BootstrapReport(
        seeded=True,
        over_data=over_data,
        forced=forced,
        removed_default=removed,
        default_key_value=value,
        warnings=settings.warnings,
        documents=(before, documents_of(connection)),
        left=pruned.left,
    )


def _has_data(connection: Connection) -> bool:
    """True when somebody configured something; the key `default` that nobody has touched does not count."""
    untouched = _untouched_default(connection)
    for table in _TABLES:
        count = connection.execute(f"SELECT count(*) FROM {table}")[0][0]
        if count > (1 if table == "virtual_keys" and untouched is not None else 0):
            return True
    return any(scope[0].value != "run" for scope in read.caps_by_scope(connection))


def _untouched_default(connection: Connection) -> VirtualKeyRecord | None:
    key_id = get_meta(connection, _DEFAULT_KEY)
    record = read.virtual_key(connection, key_id) if key_id else None
    if record is None or record.id != key_id or record.updated_ms != record.created_ms:
        return None
    return record


def _make_default(store: ConfigStore) -> str | None:
    with store.changing() as connection:
        if _has_data(connection) or get_meta(connection, _DEFAULT_KEY) is not None:
            return None
        with store.audited(connection, "create", "virtual_key") as edit:
            value = _insert_default(store, connection)
            edit.id = get_meta(connection, _DEFAULT_KEY) or ""
        return value


def _insert_default(store: ConfigStore, connection: Connection) -> str | None:
    spec = VirtualKeySpec(
        name=DEFAULT_KEY_NAME,
        description="Made at the first start: every provider, with the callers' own credentials, no budget.",
        provider_configs=(ProviderConfigSpec(provider="*", key_ids=()),),
    )
    record = insert_virtual_key(store, connection, spec, value=None)
    set_meta(connection, _DEFAULT_KEY, record.id)
    return record.value


def _remove_default(connection: Connection, settings: Settings) -> bool:
    """The file now says who may spend; a key without a budget must not stay open beside it, unless the file names it."""
    record = _untouched_default(connection)
    if record is None or settings.gateway.default_virtual_key == record.name:
        return False
    if any(listener.virtual_key == record.name for listener in settings.gateway.listeners):
        return False
    remove_virtual_key(connection, record)
    set_meta(connection, _DEFAULT_KEY, "")
    return True


def apply_plan(
    store: ConfigStore, connection: Connection, plan: FilePlan, settings: Settings, *, unchanged: Collection[str] = ()
) -> None:
    """Bring what the plan names to what it says, inside a transaction. Raises UserError, naming the place in the file.

    `unchanged`: places whose entries are known to be in the store like that; nothing is done for them.
    """
    for name, provider in plan.providers:
        if f"providers.{name}" not in unchanged:
            put_provider(store, connection, name, provider, path=f"providers.{name}")
    for index, customer in enumerate(plan.customers):
        if f"governance.customers[{index}]" in unchanged:
            continue
        before = read.customer(connection, customer.id or customer.name)
        put_customer(store, connection, customer, before=before, path=f"governance.customers[{index}]")
    for index, team in enumerate(plan.teams):
        if f"governance.teams[{index}]" in unchanged:
            continue
        known = read.team(connection, team.id or team.name)
        put_team(store, connection, team, before=known, path=f"governance.teams[{index}]")
    for index, key in enumerate(plan.virtual_keys):
        path = f"governance.virtual_keys[{index}]"
        if path in unchanged:
            continue
        value = settings.secret(key.value, f"{path}.value")
        present = read.virtual_key(connection, key.id or key.name)
        if present is None:
            insert_virtual_key(store, connection, key, value=value, path=path)
        else:
            replace_virtual_key(store, connection, present, key, value=value, path=path)
    for group in plan.wide_caps:
        if group.path in unchanged:
            continue
        try:
            owner = replace(find_owner(store, connection, group.scope, group.scope_id), calendar_aligned=group.calendar_aligned)
        except UserError as error:
            raise UserError(f"{group.path}: {str(error).removeprefix('scope_id: ')}") from None
        set_caps(
            store,
            connection,
            owner,
            budgets=group.budgets,
            rate_limit=group.rate_limit,
            rate_limit_given=True,
            path=group.path,
        )
    for index, config in enumerate(plan.model_configs):
        if f"governance.model_configs[{index}]" not in unchanged:
            put_model_config(store, connection, config, path=f"governance.model_configs[{index}]")
    for index, rule in enumerate(plan.routing_rules):
        if f"governance.routing_rules[{index}]" in unchanged:
            continue
        put_routing_rule(store, connection, rule, before=known_rule(connection, rule), path=f"governance.routing_rules[{index}]")
    for index, override in enumerate(plan.pricing_overrides):
        if f"governance.pricing_overrides[{index}]" in unchanged:
            continue
        present_override = known_pricing_override(connection, override)
        place = f"governance.pricing_overrides[{index}]"
        put_pricing_override(store, connection, override, before=present_override, path=place)


def _named_entries(settings: Settings) -> Iterator[str]:
    """What the file holds that the store goes before, in words: `providers: openai`, `virtual keys: a, b and 3 more`."""
    governance = settings.governance
    groups: tuple[tuple[str, Sequence[str]], ...] = (
        ("providers", tuple(settings.providers)),
        ("virtual keys", tuple(key.name for key in governance.virtual_keys)),
        ("teams", tuple(team.name for team in governance.teams)),
        ("customers", tuple(customer.name for customer in governance.customers)),
        ("budgets", tuple(budget.name or budget.id or "(unnamed)" for budget in governance.budgets)),
        ("rate limits", tuple(limit.id for limit in governance.rate_limits)),
        ("model configs", tuple(config.model_name for config in governance.model_configs)),
        ("provider limits", tuple(provider.name for provider in governance.providers)),
        ("routing rules", tuple(rule.name for rule in governance.routing_rules)),
        ("pricing overrides", tuple(override.name for override in governance.pricing_overrides)),
    )
    for label, names in groups:
        if names:
            shown, rest = names[:3], len(names) - 3
            yield f"{label}: {', '.join(shown)}{f' and {rest} more' if rest > 0 else ''}"
