"""`/api/governance/export` and `/api/governance/import`: the whole governance as one file; an import shows its plan first."""

import tomllib
from decimal import Decimal
from typing import Any, Literal, NotRequired, TypedDict

from tornado.http1connection import HTTP1Connection
from tornado.web import stream_request_body

from addons.console.api.paging import Flag
from addons.console.handler import ConsoleHandler
from addons.console.routes import Route, operation
from store.config_store.export import Format, export_text
from store.config_store.fields import Reason, Text, loads_exact
from store.config_store.import_plan import Change, ImportPlan, Wish, apply_import, plan_import
from store.config_store.specs import ProviderSpec, Spec
from store.config_store.store import ConfigStore
from store.errors import UserError
from store.settings import Governance

MAX_IMPORT_BYTES = 64 * 1024 * 1024
"""A hundred thousand virtual keys."""
_MEDIA: dict[Format, str] = {"toml": "application/toml; charset=utf-8", "json": "application/json; charset=utf-8"}
_TOML = "toml"


class ExportQuery(Spec):
    """In what form."""

    format: Literal["toml", "json"] = "toml"
    secrets: Flag = False
    """Values in place of hints, where the store can read them. The audit log says who asked for them."""


class ImportQuery(Spec):
    """What to do with the file."""

    dry_run: Flag = False
    """Only the plan: nothing is changed."""
    prune: Flag = False
    """Also delete what the sections of the file do not name."""
    new_values: Flag = False
    """Make fresh values for virtual keys of which the file has only a hint, and the store nothing."""
    tag: Text = ""
    """Of a plan that was seen: when the configuration has been changed since, the answer is a 412."""
    reason: Reason = ""
    """Kept in the audit log beside each change."""


class ImportBody(Spec):
    """The governance as in config.json; as JSON, or as TOML with the content type `application/toml`."""

    providers: dict[str, ProviderSpec] = {}
    governance: Governance = Governance()
    prompts: tuple[dict[str, Any], ...] = ()


FieldAnswer = TypedDict("FieldAnswer", {"path": str, "from": Any, "to": Any})
FieldAnswer.__doc__ = "One field of a thing; null for one that is absent."


class ThingAnswer(TypedDict):
    """One thing."""

    kind: str
    id: str
    name: str


class ChangeAnswer(ThingAnswer):
    """One thing that is made, changed or deleted."""

    action: Literal["create", "update", "delete"]
    fields: list[FieldAnswer]
    document: dict[str, Any]
    """As it is afterwards, or was before it is deleted."""
    secret_changed: bool


class NewValueAnswer(TypedDict):
    """A virtual key that was made with a fresh value."""

    name: str
    value: str


class ImportAnswer(TypedDict):
    """What was changed, or with `dry_run` would be."""

    message: str
    applied: bool
    tag: str
    changes: list[ChangeAnswer]
    unchanged: int
    left_alone: list[ThingAnswer]
    """What the file's sections do not name; `prune` would delete it."""
    warnings: list[str]
    new_keys: list[str]
    """Names of virtual keys that get a fresh value."""
    new_values: NotRequired[list[NewValueAnswer]]
    """Their values, once, when it is done."""


class ExportHandler(ConsoleHandler):
    """Everything."""

    @operation(
        "The whole governance as a file: TOML or JSON", query=ExportQuery, answer=str, media="application/toml, application/json"
    )
    async def get(self) -> None:
        query = self.query_as(ExportQuery)
        text = await self.on_thread(_exported, self.store, query)
        self.set_header("Content-Type", _MEDIA[query.format])
        self.set_header("Content-Disposition", f'attachment; filename="tollgate-governance.{query.format}"')
        self.finish(text)


@stream_request_body
class ImportHandler(ConsoleHandler):
    """A file of any size that somebody may write."""

    async def prepare(self) -> None:
        """Whoever may come in may send more than elsewhere."""
        self._pieces: list[bytes] = []
        await super().prepare()
        if isinstance(self.request.connection, HTTP1Connection):
            self.request.connection.set_max_body_size(MAX_IMPORT_BYTES)

    def data_received(self, chunk: bytes) -> None:
        """Gathers the file."""
        self._pieces.append(chunk)

    @operation("Apply a file, or show what it would change", query=ImportQuery, body=ImportBody, answer=ImportAnswer,
               rehearsal=False)  # fmt: skip
    async def post(self) -> None:
        query = self.query_as(ImportQuery)
        content = b"".join(self._pieces)
        is_toml = _TOML in self.request.headers.get("Content-Type", "")
        made = await self.on_thread(self._imported, content, is_toml, query)
        self.send(_answer(made, applied=not query.dry_run))

    def _imported(self, content: bytes, is_toml: bool, query: ImportQuery) -> ImportPlan:
        document = read_toml(content) if is_toml else _read_json(content)
        wish = Wish(document, self.context.settings.environ, "the file", query.prune, query.new_values)
        if query.dry_run:
            return plan_import(self.store, wish)
        return apply_import(self.store, wish, tag=query.tag or None, reason=query.reason or "import")


def read_toml(content: bytes) -> dict[str, Any]:
    """A TOML document with exact decimals. Raises UserError with line and column."""
    try:
        return tomllib.loads(content.decode("utf-8-sig"), parse_float=Decimal)
    except UnicodeDecodeError:
        raise UserError("the file is not UTF-8 text") from None
    except RecursionError:
        raise UserError("the file is nested too deeply") from None
    except ValueError as error:
        raise UserError(f"the file is not valid TOML: {error}") from None


def _read_json(content: bytes) -> dict[str, Any]:
    try:
        document = loads_exact(content)
    except RecursionError:
        raise UserError("the file is nested too deeply") from None
    except ValueError as error:
        raise UserError(f"the file is not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise UserError("the file must be a JSON object with providers and governance, as an export is")
    return document


def _exported(store: ConfigStore, query: ExportQuery) -> str:
    text = export_text(store, query.format, secrets=query.secrets)
    if query.secrets:
        with store.ledger.write() as ledger:
            store.note(ledger, "export secrets", "governance")
    return text


def _answer(plan: ImportPlan, *, applied: bool) -> dict[str, Any]:
    made: dict[str, Any] = {
        "message": "Import applied successfully" if applied else "Nothing was changed: this is the plan",
        "applied": applied,
        "tag": plan.tag,
        "changes": [_change(one) for one in plan.changes],
        "unchanged": plan.unchanged,
        "left_alone": [{"kind": one.kind, "id": one.id, "name": one.name} for one in plan.left_alone],
        "warnings": list(plan.warnings),
        "new_keys": [name for name, _ in plan.new_keys],
    }
    if applied:
        made["new_values"] = [{"name": name, "value": value} for name, value in plan.new_keys]
    return made


def _change(one: Change) -> dict[str, Any]:
    return {
        "action": one.action,
        "kind": one.kind,
        "id": one.id,
        "name": one.name,
        "fields": [{"path": field.path, "from": field.before, "to": field.after} for field in one.fields],
        "document": one.after or one.before or {},
        "secret_changed": one.secret_changed,
    }


ROUTES = (Route("/api/governance/export", ExportHandler), Route("/api/governance/import", ImportHandler))
