"""What no single field of config.json shows: names that stand twice, ids that lead nowhere. Pure."""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from store.config_store.keys import KEY_PREFIX, check_key_value
from store.config_store.problems import nearest
from store.errors import SettingsError

if TYPE_CHECKING:
    from store.settings import Governance, Settings


def check_references(settings: "Settings") -> None:
    """What pydantic cannot see: values across the document. Raises SettingsError."""
    governance = settings.governance
    for index, key in enumerate(governance.virtual_keys):
        if key.value is not None and (value := key.value.resolve(settings.environ)) is not None:
            try:
                check_key_value(value)
            except ValueError as error:
                raise SettingsError(f"governance.virtual_keys[{index}].value: {error}") from None
        if key.value is None and settings.file_only:
            raise SettingsError(
                f"governance.virtual_keys[{index}].value: is required while config_store.enabled is false, because no store "
                "would remember a made one; write env.NAME, or a text that begins with sk-bf-"
            )
    _unique("governance.virtual_keys", [key.name for key in governance.virtual_keys], "name")
    _unique("governance.teams", [team.name for team in governance.teams], "name")
    _unique("governance.customers", [customer.name for customer in governance.customers], "name")
    _unique("governance.pricing_overrides", [override.name for override in governance.pricing_overrides], "name")
    for section in ("virtual_keys", "teams", "customers", "budgets", "rate_limits", "model_configs", "pricing_overrides"):
        _unique(f"governance.{section}", [row.id for row in getattr(governance, section) if row.id], "id")
    _unique(
        "governance.virtual_keys[].provider_configs",
        [config.id for key in governance.virtual_keys for config in key.provider_configs if config.id],
        "id",
    )
    _known_ids(governance)
    default = settings.gateway.default_virtual_key
    if default is not None and default.startswith(KEY_PREFIX):
        raise SettingsError("gateway.default_virtual_key: is a key's value; write the key's name")


def _unique(path: str, values: list[str], what: str) -> None:
    double = next((value for value, times in Counter(values).items() if times > 1), None)
    if double is not None:
        raise SettingsError(f"{path}: the {what} {double!r} stands there twice; each needs its own")


def _known_ids(governance: "Governance") -> None:
    names: dict[str, list[str]] = {
        "team_id": [name for team in governance.teams for name in (team.id, team.name) if name],
        "customer_id": [name for customer in governance.customers for name in (customer.id, customer.name) if name],
        "virtual_key_id": [name for key in governance.virtual_keys for name in (key.id, key.name) if name],
        "provider_config_id": [config.id for key in governance.virtual_keys for config in key.provider_configs if config.id],
        "model_config_id": [row.known_id for row in governance.model_configs if row.known_id],
        "budget_id": [budget.id for budget in governance.budgets if budget.id],
        "rate_limit_id": [limit.id for limit in governance.rate_limits],
    }
    known = {kind: frozenset(of_kind) for kind, of_kind in names.items()}
    for path, kind, value in _references(governance):
        if value not in known[kind]:
            hint = nearest(value, names[kind]) if names[kind] else "the file has none"
            raise SettingsError(f"{path}: there is no {kind.removesuffix('_id').replace('_', ' ')} {value!r}; {hint}")


def _references(governance: "Governance") -> Iterator[tuple[str, str, str]]:
    """(path, kind of id, id) of every place that names another row."""
    names = ("team_id", "customer_id", "virtual_key_id", "provider_config_id", "model_config_id", "budget_id", "rate_limit_id")
    for section in ("virtual_keys", "teams", "customers", "budgets", "model_configs", "providers", "pricing_overrides"):
        for index, row in enumerate(getattr(governance, section)):
            for name in names:
                if value := getattr(row, name, None):
                    yield f"governance.{section}[{index}].{name}", name, value
            for number, value in enumerate(getattr(row, "budget_ids", ())):
                yield f"governance.{section}[{index}].budget_ids[{number}]", "budget_id", value
    for index, key in enumerate(governance.virtual_keys):
        for number, config in enumerate(key.provider_configs):
            if config.rate_limit_id:
                path = f"governance.virtual_keys[{index}].provider_configs[{number}].rate_limit_id"
                yield path, "rate_limit_id", config.rate_limit_id
    for index, row in enumerate(governance.model_configs):
        if row.scope == "virtual_key" and row.scope_id:
            yield f"governance.model_configs[{index}].scope_id", "virtual_key_id", row.scope_id
