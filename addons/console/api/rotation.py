"""`/api/governance/virtual-keys/…/rotate`: new values for one key or several, with time for the callers to follow."""

from typing import Annotated

from pydantic import Field

from addons.console.api.answers import VirtualKeyDone, VirtualKeysRotated
from addons.console.api.reading import read_key
from addons.console.handler import ConsoleHandler
from addons.console.routes import Route, operation
from store.config_store import change
from store.config_store.fields import Duration, Id
from store.config_store.shapes import Json
from store.config_store.specs import Spec
from store.errors import NotFound, Rehearsed, StoreUnavailable, UserError
from store.windows import parse_duration


class Rotate(Spec):
    """How long the present value keeps working beside the new one. Without `overlap` it stops at once."""

    overlap: Annotated[Duration, Field(description="Such as 30m, 24h, 7d.")] | None = None

    @property
    def overlap_ms(self) -> int:
        """Milliseconds."""
        return parse_duration(self.overlap).ms if self.overlap else 0


class RotateMany(Rotate):
    """Which keys get new values."""

    ids: tuple[Id, ...]


class RotateKeyHandler(ConsoleHandler):
    """A new value for one key."""

    @operation("Give a virtual key a new value", body=Rotate, answer=VirtualKeyDone)
    async def post(self, key_id: str) -> None:
        overlap_ms = self.body_as(Rotate).overlap_ms
        made = await self.on_thread(self._rotate, key_id, overlap_ms)
        self.send({"message": "Virtual key rotated successfully", "virtual_key": made})

    def _rotate(self, key_id: str, overlap_ms: int) -> Json:
        record = change.rotate_virtual_key(self.store, key_id, overlap_ms=overlap_ms)
        return read_key(self.context, record.id, record.value)


class RotateKeysHandler(RotateKeyHandler):
    """New values for several keys; those that fail are named with the reason."""

    @operation("Give several virtual keys new values", body=RotateMany, answer=VirtualKeysRotated)
    async def post(self) -> None:
        body = self.body_as(RotateMany)
        if not body.ids:
            raise UserError("ids: names no key")
        made: list[Json] = []
        errors: dict[str, str] = {}
        rehearsed = None
        for key_id in dict.fromkeys(body.ids):
            try:
                made.append(await self.on_thread(self._rotate, key_id, body.overlap_ms))
            except Rehearsed as taken_back:
                rehearsed = taken_back
            except (UserError, StoreUnavailable) as error:
                errors[key_id] = str(error)
        if rehearsed is not None:
            raise rehearsed  # as in earnest, one that works is enough
        if not made:
            raise NotFound("; ".join(errors.values()))
        answer: Json = {"message": "Virtual keys rotated successfully", "virtual_keys": made}
        self.send({**answer, "errors": errors} if errors else answer)


class PreviousValueHandler(ConsoleHandler):
    """The value before the last rotation."""

    @operation("End the overlap of a rotation: the earlier value stops now", answer=VirtualKeyDone)
    async def delete(self, key_id: str) -> None:
        self.send({"message": "The earlier value stops now", "virtual_key": await self.on_thread(self._end, key_id)})

    def _end(self, key_id: str) -> Json:
        return read_key(self.context, change.end_overlap(self.store, key_id).id)


ROUTES = (
    Route("/api/governance/virtual-keys/rotate", RotateKeysHandler),
    Route("/api/governance/virtual-keys/{key_id}/rotate", RotateKeyHandler),
    Route("/api/governance/virtual-keys/{key_id}/previous-value", PreviousValueHandler),
)
