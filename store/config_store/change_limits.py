"""Changes of one owner's rate limits on their own, whoever the owner is, in one transaction. What was used stays."""

from store.config_store.change_caps import find_owner, set_caps
from store.config_store.specs import RateLimitRowSpec
from store.config_store.store import ConfigStore
from store.ledger.types import Scope


def set_rate_limit(store: ConfigStore, spec: RateLimitRowSpec) -> tuple[Scope, str]:
    """Make an owner's limits in tokens, requests and parallel calls exactly these; nulls remove them. Returns whose they are.

    Raises UserError, NotFound, Conflict.
    """
    with store.changing() as connection:
        owner = find_owner(store, connection, Scope(spec.scope), spec.scope_id)
        set_caps(store, connection, owner, rate_limit=spec, rate_limit_given=True)
        return owner.scope, owner.id
