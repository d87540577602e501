"""`/api/audit`: who changed what, from where, before and after; a page, one row, and all of them as a file."""

import logging
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, TypedDict

from pydantic import Field
from tornado.iostream import StreamClosedError

from addons.console.api.paging import DEFAULT_LIMIT, MAX_LIMIT, Whole
from addons.console.handler import ConsoleHandler
from addons.console.routes import Route, operation
from store.clock import ms_from_iso
from store.config_store.audit import AuditPage, AuditQuery, audit_entry, audit_page, audit_rows
from store.config_store.audit_export import FORMS, Form, entry_json
from store.config_store.fields import Time
from store.config_store.specs import Spec
from store.errors import NotFound
from store.like import LONGEST

log = logging.getLogger(__name__)

Part = Annotated[str, Field(max_length=LONGEST)]


class AuditRow(TypedDict):
    """One change. Documents hold no secrets; they are null where there was nothing, or where `details` says it all."""

    sequence: int
    timestamp: str
    actor: str
    method: str
    address: str
    action: str
    kind: str
    entity_id: str
    entity_name: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    details: dict[str, Any] | None
    reason: str
    digest: str


class AuditRows(TypedDict):
    """A page, newest first. `total_is_exact` is false when there are more than `total_count`."""

    entries: list[AuditRow]
    count: int
    total_count: int
    total_is_exact: bool
    limit: int
    offset: int


class AuditFilter(Spec):
    """Which rows; all conditions must hold."""

    actor: Part = ""
    kind: Part = ""
    entity_id: Part = ""
    action: Part = ""
    start_time: Time = Field(default="", description="From this time on.")
    end_time: Time = Field(default="", description="Before this time.")
    search: Part = Field(default="", description="Part of a name, an id, an actor, an address or a reason, in any case.")

    def query(self) -> AuditQuery:
        """As the store asks."""
        return AuditQuery(
            actor=self.actor or None,
            kind=self.kind or None,
            entity_id=self.entity_id or None,
            action=self.action or None,
            start_ms=ms_from_iso(self.start_time) if self.start_time else None,
            end_ms=ms_from_iso(self.end_time) if self.end_time else None,
            search=self.search or None,
        )


class AuditPageQuery(AuditFilter):
    """Which rows, and which page of them."""

    limit: Whole = None
    offset: Whole = None


class ExportQuery(AuditFilter):
    """Which rows, and how they are written."""

    format: Literal["jsonl", "json", "csv", "syslog"] = "jsonl"


class AuditHandler(ConsoleHandler):
    """A page of the log."""

    @operation("Changes of the configuration, newest first", query=AuditPageQuery, answer=AuditRows)
    async def get(self) -> None:
        asked = self.query_as(AuditPageQuery)
        limit, offset = min(asked.limit or DEFAULT_LIMIT, MAX_LIMIT), asked.offset or 0
        page = await self.on_thread(self._page, asked.query(), limit, offset)
        self.send(
            {
                "entries": [entry_json(entry) for entry in page.entries],
                "count": len(page.entries),
                "total_count": page.total,
                "total_is_exact": page.is_exact,
                "limit": limit,
                "offset": offset,
            }
        )

    def _page(self, query: AuditQuery, limit: int, offset: int) -> AuditPage:
        with self.context.store.ledger.read() as connection:
            return audit_page(connection, query, limit, offset)


class AuditEntryHandler(ConsoleHandler):
    """One change."""

    @operation("One change of the configuration", answer=AuditRow)
    async def get(self, sequence: str) -> None:
        number = int(sequence) if sequence.isascii() and sequence.isdigit() and len(sequence) <= 18 else 0
        entry = await self.on_thread(self._entry, number)
        if entry is None:
            raise NotFound(f"there is no row {sequence!r} in the audit log, or its retention has passed")
        self.send(entry_json(entry))

    def _entry(self, sequence: int) -> Any:
        with self.context.store.ledger.read() as connection:
            return audit_entry(connection, sequence)


class AuditExportHandler(ConsoleHandler):
    """All rows that are asked for, oldest first, in pieces: the log may be larger than memory."""

    @operation(
        "All of it as a file: JSON lines, JSON, CSV, or RFC 5424 syslog messages, oldest first", query=ExportQuery, answer=str,
        media="application/x-ndjson, application/json, text/csv, text/plain",
    )  # fmt: skip
    async def get(self) -> None:
        asked = self.query_as(ExportQuery)
        form, query = FORMS[asked.format], asked.query()
        rows = await self.on_thread(self._piece, query, 0)  # a store that cannot be read is still an error of its own
        self.set_header("Content-Type", form.media)
        self.set_header("Content-Disposition", f'attachment; filename="tollgate-audit.{form.suffix}"')
        if self.request.method == "HEAD":
            return
        self.write(form.head)
        first = True
        while rows:
            self.write(await self.on_thread(_written, form, rows, first))
            first = False
            try:
                await self.flush()
                rows = await self.on_thread(self._piece, query, rows[-1].sequence)
            except StreamClosedError:
                return
            except Exception as fault:
                log.warning("an export of the audit log was broken off: %s", fault)
                self.detach().close()  # an answer that ends in good order would look like all of the log
                return
        self.finish(form.tail)

    def _piece(self, query: AuditQuery, after: int) -> list[Any]:
        with self.context.store.ledger.read() as connection:
            return audit_rows(connection, query, after)


def _written(form: Form, rows: Iterable[Any], first: bool) -> bytes:
    row: Callable[[Any], bytes] = form.row
    made = form.between.join(row(entry) for entry in rows)
    return made if first else form.between + made


ROUTES = (
    Route("/api/audit", AuditHandler),
    Route("/api/audit/export", AuditExportHandler),
    Route("/api/audit/{sequence}", AuditEntryHandler),
)
