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
from store.config_store.change_keys import (
    create_virtual_key,
    delete_virtual_key,
    end_overlap,
    rotate_virtual_key,
    update_virtual_key,
)
from store.config_store.change_limits import set_rate_limit
from store.config_store.change_models import create_model_config, delete_model_config, update_model_config
from store.config_store.change_provider_limits import drop_provider_limits, set_provider_limits
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
from store.config_store.change_routing import create_routing_rule, delete_routing_rule, update_routing_rule
from store.config_store.change_runs import create_run, end_run
from store.config_store.change_spending import confirm_call, raise_budget, unraise_budget

__all__ = [
    "ProviderKeyPatch",
    "ProviderPatch",
    "confirm_call",
    "create_budget",
    "create_customer",
    "create_model_config",
    "create_provider",
    "create_provider_key",
    "create_routing_rule",
    "create_run",
    "create_team",
    "create_virtual_key",
    "delete_budget",
    "delete_customer",
    "delete_model_config",
    "delete_provider",
    "delete_provider_key",
    "delete_routing_rule",
    "delete_team",
    "delete_virtual_key",
    "drop_provider_limits",
    "end_overlap",
    "end_run",
    "raise_budget",
    "reset_budget",
    "rotate_virtual_key",
    "set_provider_limits",
    "set_rate_limit",
    "top_up_budget",
    "unraise_budget",
    "update_budget",
    "update_customer",
    "update_model_config",
    "update_provider",
    "update_provider_key",
    "update_routing_rule",
    "update_team",
    "update_virtual_key",
]
