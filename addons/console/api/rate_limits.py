"""`/api/governance/rate-limits`: every owner's limits in tokens, requests and parallel calls, and setting one owner's."""

from addons.console.api.answers import RateLimitDone, RateLimitList
from addons.console.api.reading import states_of
from addons.console.context import ConsoleContext
from addons.console.handler import ConsoleHandler
from addons.console.routes import Route, operation
from store.config_store import change, read
from store.config_store.shapes import Json, by_owner, rate_limit_json
from store.config_store.specs import RateLimitRowSpec
from store.ledger.types import Scope


class RateLimitsHandler(ConsoleHandler):
    """The list, and the whole set of one owner's limits."""

    @operation("Every owner's limits in tokens, requests and parallel calls", answer=RateLimitList)
    async def get(self) -> None:
        found = await self.on_thread(_all, self.context)
        self.send({"rate_limits": found, "count": len(found)})

    @operation("The whole set of one owner's limits; nulls remove them", body=RateLimitRowSpec, answer=RateLimitDone)
    async def put(self) -> None:
        spec = self.body_as(RateLimitRowSpec)
        scope, scope_id = await self.on_thread(change.set_rate_limit, self.store, spec)
        made = await self.on_thread(_one, self.context, scope, scope_id)
        self.send({"message": "Rate limit updated successfully", "rate_limit": made})


def _all(context: ConsoleContext) -> list[Json]:
    with context.store.ledger.read() as connection:
        owners = by_owner(states_of(context, connection))
    made = []
    for (scope, scope_id), states in owners.items():
        limit = rate_limit_json(states)
        if limit is not None and scope is not Scope.RUN:
            made.append({**limit, "scope": scope.value, "scope_id": scope_id, "scope_name": states[0].cap.scope_name})
    return made


def _one(context: ConsoleContext, scope: Scope, scope_id: str) -> Json | None:
    with context.store.ledger.read() as connection:
        caps = read.caps_of(connection, scope, scope_id)
        states = states_of(context, connection, [cap.id for cap in caps])
    limit = rate_limit_json(states)
    if limit is None:
        return None
    return {**limit, "scope": scope.value, "scope_id": scope_id, "scope_name": states[0].cap.scope_name}


ROUTES = (Route("/api/governance/rate-limits", RateLimitsHandler),)
