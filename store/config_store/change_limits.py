"""Changes of one owner's rate limits on their own, whoever the owner is, in one transaction. What was used stays."""

from store.config_store.change_caps import find_owner, set_caps
from store.config_store.make_caps import Owner
from store.config_store.specs import RateLimitRowSpec
from store.config_store.store import ConfigStore
from store.database import Connection
from store.ledger.types import Scope


def set_rate_limit(store: ConfigStore, spec: RateLimitRowSpec) -> tuple[Scope, str]:
    """Make an owner's limits in tokens, requests and parallel calls exactly these; nulls remove them. Returns whose they are.

    Raises UserError, NotFound, Conflict.
    """
    with store.changing() as connection:
        owner = find_owner(store, connection, Scope(spec.scope), spec.scope_id)
        store.truth.refuse("update", owner.scope.value, owner.id, scope=owner.scope.value)
        with store.audited(connection, "update", *_whose(connection, owner)) as edit:
            edit.name = owner.name
            set_caps(store, connection, owner, rate_limit=spec, rate_limit_given=True)
        return owner.scope, owner.id


def _whose(connection: Connection, owner: Owner) -> tuple[str, str]:
    """(kind, id) of the document that an owner's limits are part of."""
    if owner.scope is Scope.PROVIDER_CONFIG:
        return "virtual_key", connection.execute("SELECT virtual_key_id FROM provider_configs WHERE id = ?", (owner.id,))[0][0]
    return _KINDS.get(owner.scope, owner.scope.value), owner.id


_KINDS = {Scope.PROVIDER: "provider_limits", Scope.MODEL: "model_config", Scope.VIRTUAL_KEY_MODEL: "model_config"}
