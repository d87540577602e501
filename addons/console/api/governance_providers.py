"""`/api/governance/providers`: the deployment-wide caps of whole providers."""

from collections.abc import Sequence
from typing import TypedDict

from addons.console.api.answers import Caps, Done
from addons.console.api.paging import Flag
from addons.console.api.reading import states_of
from addons.console.context import ConsoleContext
from addons.console.handler import ConsoleHandler
from addons.console.routes import Route, operation
from store.config_store import change, read
from store.config_store.shapes import Json, by_owner, caps_json
from store.config_store.specs import Spec
from store.config_store.specs_models import ProviderLimitsPatch
from store.ledger.types import CapState, Scope


class ProviderLimitsQuery(Spec):
    """`from_memory` changes nothing: what is read is what is in force."""

    from_memory: Flag = False


class ProviderLimits(Caps):
    """The caps that bind every call to a provider."""

    provider: str
    calendar_aligned: bool


class ProviderLimitsList(TypedDict):
    """Every provider that has caps of its own."""

    providers: list[ProviderLimits]
    count: int


class ProviderLimitsDone(Done):
    """The provider's caps as they are now."""

    provider: ProviderLimits


class ProvidersLimitsHandler(ConsoleHandler):
    """The list."""

    @operation("Deployment-wide caps of providers with what was spent", query=ProviderLimitsQuery, answer=ProviderLimitsList)
    async def get(self) -> None:
        self.query_as(ProviderLimitsQuery)
        found = await self.on_thread(_all, self.context)
        self.send({"providers": found, "count": len(found)})


class ProviderLimitsHandler(ConsoleHandler):
    """One provider's caps."""

    @operation("Change a provider's caps: absent fields stay, lists are the whole set", body=ProviderLimitsPatch,
               answer=ProviderLimitsDone)  # fmt: skip
    async def put(self, name: str) -> None:
        patch = self.body_as(ProviderLimitsPatch)
        await self.on_thread(change.set_provider_limits, self.store, name, patch)
        made = await self.on_thread(_tagged, self, name)
        self.send({"message": "Provider governance updated successfully", "provider": made})

    @operation("Delete a provider's caps, if it has any; what was spent stays in the books", answer=Done)
    async def delete(self, name: str) -> None:
        await self.on_thread(change.drop_provider_limits, self.store, name)
        self.send({"message": "Provider governance deleted successfully"})


def _all(context: ConsoleContext) -> list[Json]:
    with context.store.ledger.read() as ledger:
        names = [scope_id for scope, scope_id in read.caps_by_scope(ledger) if scope is Scope.PROVIDER]
        states = by_owner(states_of(context, ledger, read.cap_ids_of(ledger, Scope.PROVIDER, names)))
    return [_shown(name, states.get((Scope.PROVIDER, name), ())) for name in sorted(names)]


def _tagged(handler: ConsoleHandler, name: str) -> Json:
    handler.tag("provider_limits", name)
    with handler.context.store.ledger.read() as ledger:
        return _shown(name, states_of(handler.context, ledger, read.cap_ids_of(ledger, Scope.PROVIDER, [name])))


def _shown(name: str, states: Sequence[CapState]) -> Json:
    return {
        "provider": name,
        **caps_json({(Scope.PROVIDER, name): states}, Scope.PROVIDER, name),
        "calendar_aligned": any(state.cap.calendar_aligned for state in states),
    }


ROUTES = (
    Route("/api/governance/providers", ProvidersLimitsHandler),
    Route("/api/governance/providers/{name}", ProviderLimitsHandler),
)
