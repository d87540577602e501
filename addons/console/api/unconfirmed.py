"""`/api/governance/unconfirmed`: calls posted at their hold because nobody could say what they cost; confirm or correct them."""

from addons.console.api.answers import CallConfirmed, UnconfirmedList
from addons.console.api.paging import PageQuery, list_envelope
from addons.console.handler import ConsoleHandler
from addons.console.routes import Route, operation
from store.config_store import change
from store.config_store.fields import Count, Reason, Usd
from store.config_store.shapes import Json, unconfirmed_json
from store.config_store.specs import Spec
from store.ledger.history import count_unconfirmed, posts_of, unconfirmed
from store.ledger.rows import read_caps
from store.money import nanos_from_usd, usd_from_nanos

ALL_AT_MOST = 1_000


class ConfirmBody(Spec):
    """What the call really cost; absent: as it was posted. And how it is known."""

    cost: Usd | None = None
    tokens: Count | None = None
    reason: Reason


class UnconfirmedHandler(ConsoleHandler):
    """The list, oldest first."""

    @operation("Calls posted at their hold, as nobody knew their cost; oldest first", query=PageQuery, answer=UnconfirmedList)
    async def get(self) -> None:
        limit, offset = self.query_as(PageQuery).page()
        limit = ALL_AT_MOST if limit is None else limit
        found, total = await self.on_thread(self._page, limit, offset)
        self.send(list_envelope("calls", found, total=total, limit=limit, offset=offset))

    def _page(self, limit: int, offset: int) -> tuple[list[Json], int]:
        with self.context.store.ledger.read() as connection:
            records = unconfirmed(connection, limit, offset)
            caps = read_caps(connection, {cap_id for record in records for cap_id in record.cap_ids})
            names = {cap_id: stored.cap.name for cap_id, stored in caps.items()}
            return [unconfirmed_json(record, names) for record in records], count_unconfirmed(connection)


class ConfirmHandler(ConsoleHandler):
    """A person's word on one call."""

    @operation("Say what an unconfirmed call cost, for good", body=ConfirmBody, answer=CallConfirmed)
    async def post(self, call_id: str) -> None:
        body = self.body_as(ConfirmBody)
        cost_nanos = None if body.cost is None else nanos_from_usd(body.cost)
        await self.on_thread(change.confirm_call, self.store, call_id, cost_nanos, body.tokens, body.reason)
        self.send({"message": "Call confirmed successfully", "call": await self.on_thread(self._call, call_id)})

    def _call(self, call_id: str) -> Json:
        with self.context.store.ledger.read() as connection:
            records = posts_of(connection, call_id)
        return {
            "call_id": call_id,
            "cost": usd_from_nanos(sum(record.cost_nanos for record in records)),
            "tokens": sum(record.tokens for record in records),
            "posted": usd_from_nanos(records[0].cost_nanos),
            "reason": records[-1].note,
        }


ROUTES = (
    Route("/api/governance/unconfirmed", UnconfirmedHandler),
    Route("/api/governance/unconfirmed/{call_id}/confirm", ConfirmHandler),
)
