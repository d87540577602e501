"""Changes of the deployment-wide caps of a provider: they bind every call to it, whoever makes it."""

from dataclasses import replace

from store.config_store import read
from store.config_store.change_caps import drop_caps, find_owner, reset_money, set_caps
from store.config_store.make_caps import Owner
from store.config_store.specs_models import ProviderLimitsPatch
from store.config_store.store import ConfigStore
from store.database import Connection
from store.errors import NotFound
from store.ledger.types import Scope

_KIND = "provider_limits"


def set_provider_limits(store: ConfigStore, name: str, patch: ProviderLimitsPatch) -> None:
    """Change a provider's caps; what was spent stays unless `reset_budget_usage`. Raises NotFound, UserError, Conflict."""
    with store.editing("update", _KIND, name) as edit:
        connection = edit.connection
        owner = _owner(store, connection, name, patch.calendar_aligned)
        set_caps(
            store,
            connection,
            owner,
            budgets=patch.desired,
            rate_limit=patch.rate_limit,
            rate_limit_given=patch.given("rate_limit"),
            realign=patch.calendar_aligned is not None,
        )
        if patch.reset_budget_usage:
            reset_money(connection, Scope.PROVIDER, name, "reset_budget_usage")


def drop_provider_limits(store: ConfigStore, name: str) -> None:
    """Delete a provider's caps, if it has any. Raises NotFound for what is no provider."""
    with store.editing("delete", _KIND, name) as edit:
        _owner(store, edit.connection, name, None)
        drop_caps(edit.connection, Scope.PROVIDER, name)


def _owner(store: ConfigStore, connection: Connection, name: str, calendar_aligned: bool | None) -> Owner:
    """The provider; without a word on the calendar, new windows follow those that there are."""
    try:
        owner = find_owner(store, connection, Scope.PROVIDER, name)
    except NotFound as error:
        raise NotFound(str(error).removeprefix("scope_id: ")) from None
    if calendar_aligned is None:
        calendar_aligned = any(cap.calendar_aligned for cap in read.caps_of(connection, Scope.PROVIDER, name))
    return replace(owner, calendar_aligned=calendar_aligned)
