"""Every change of the configuration, each one transaction that bumps the governance revision. Import from here."""

from store.config_store.change_caps import create_budget, delete_budget, reset_budget, top_up_budget, update_budget
from store.config_store.change_groups import (
    create_customer,
    create_team,
    delete_customer,
    delete_team,
    update_customer,
    update_team,
)
from store.config_store.change_keys import create_virtual_key, delete_virtual_key, rotate_virtual_key, update_virtual_key
from store.config_store.change_limits import set_rate_limit
from store.config_store.change_providers import (
    ProviderKeyPatch,
    ProviderPatch,
    create_provider,
    create_provider_key,
    delete_provider,
    delete_provider_key,
    update_provider,
    update_provider_key,
)
from store.config_store.change_runs import create_run, end_run
from store.config_store.change_spending import confirm_call, raise_budget, unraise_budget

__all__ = [
    "ProviderKeyPatch",
    "ProviderPatch",
    "confirm_call",
    "create_budget",
    "create_customer",
    "create_provider",
    "create_provider_key",
    "create_run",
    "create_team",
    "create_virtual_key",
    "delete_budget",
    "delete_customer",
    "delete_provider",
    "delete_provider_key",
    "delete_team",
    "delete_virtual_key",
    "end_run",
    "raise_budget",
    "reset_budget",
    "rotate_virtual_key",
    "set_rate_limit",
    "top_up_budget",
    "unraise_budget",
    "update_budget",
    "update_customer",
    "update_provider",
    "update_provider_key",
    "update_team",
    "update_virtual_key",
]
