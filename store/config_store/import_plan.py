"""What an import would change, thing by thing and field by field; and the import itself, in one transaction."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from store.config_store import change
from store.config_store.bootstrap import apply_plan
from store.config_store.change_caps import drop_caps
from store.config_store.change_models import delete_model_config
from store.config_store.change_prices import delete_pricing_override
from store.config_store.change_routing import delete_routing_rule
from store.config_store.documents import Json
from store.config_store.edits import Edit, write_audit_row
from store.config_store.explicit import explicit
from store.config_store.file_plan import FilePlan, read_plan
from store.config_store.import_document import Joined, join
from store.config_store.import_warnings import warnings_of
from store.config_store.keys import new_key_value
from store.config_store.problems import known_keys, problems
from store.config_store.prompts import delete_prompt, put_prompt
from store.config_store.reach import FROM_AFAR
from store.config_store.read_prompts import find_prompt
from store.config_store.rehearsal import Outcome, Stage, perform, staged
from store.config_store.secret_text import SecretText, parse_secret
from store.config_store.specs_prompts import PromptSpec
from store.config_store.store import CHANGE_THE_FILE, ConfigStore
from store.config_store.whole import KINDS, Whole, read_whole
from store.database import Connection, governance_revision
from store.errors import Conflict, PreconditionFailed, UserError
from store.ledger.types import Scope
from store.settings import Settings, settings_from

_TRIES = 5
_KEPT = frozenset({"providers", "governance", "prompts", "version", "$schema"})
_SECRET_COLUMNS = {
    "virtual_keys": ("id", "value_hash"), "provider_keys": ("provider", "secret"), "providers": ("name", "extra_headers"),
}  # fmt: skip
"""Table → the column of whose thing it is, and the column that is not shown."""
_OF = {"virtual_keys": "virtual_key", "provider_keys": "provider", "providers": "provider"}


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field of a thing. `path` names items of lists by name; None stands for a field that is absent."""

    path: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is made, changed or deleted."""

    action: str
    """`create`, `update` or `delete`."""
    kind: str
    id: str
    name: str
    before: Json | None = None
    after: Json | None = None
    fields: tuple[FieldChange, ...] = ()
    secret_changed: bool = False
    """A value that is not shown is another one."""


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """What an import does, or would do."""

    changes: tuple[Change, ...]
    unchanged: int
    """How many things of the store stay as they are."""
    left_alone: tuple[Change, ...]
    """What the file's sections do not name, and `prune` would delete."""
    warnings: tuple[str, ...]
    new_keys: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """(name, value) of virtual keys that are made with a fresh value."""
    tag: str = ""
    """Of the configuration that the plan was made for."""
    revision: int = 0
    outcome: Outcome | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants to import. `source` stands before each error."""

    document: Json
    environ: Mapping[str, str] = field(repr=False)
    source: str = "the file"
    prune: bool = False
    """Delete what the sections of the file do not name."""
    new_values: bool = False
    """Make fresh values for virtual keys of which the file has only a hint, and the store nothing."""


def plan_import(store: ConfigStore, wish: Wish) -> ImportPlan:
    """What would change; nothing does. Raises UserError naming the place in the file, Conflict in file-only mode."""
    if store.file_only:
        raise Conflict(CHANGE_THE_FILE)
    with store.reading() as (connection, ledger):
        before = read_whole(connection, ledger, revision=governance_revision(connection))
        joined = join(store, connection, wish.document, before, prune=wish.prune, new_values=wish.new_values)
        with _named(wish.source):
            _check_reach(store, joined.document)
            settings, ignored = _settings(joined.document, wish)
            if joined.is_idle and not (wish.prune and any(joined.unnamed.values())):
                return _nothing_to_do(before, joined, (*ignored, *settings.warnings, *joined.warnings), prune=wish.prune)
        with _named(wish.source), staged(store, connection) as stage:
            plan, new_keys = _with_values(store, explicit(read_plan(settings)), joined)
            if wish.prune:
                _prune(stage.store, joined)
            with stage.store.changing() as inside:
                apply_plan(stage.store, inside, plan, settings, unchanged=joined.unchanged)
                _put_prompts(stage.store, inside, joined)
            outcome = stage.outcome()
            after = _read(stage)
        changes = tuple(_changes(before, after, _secrets_of(outcome)))
        for one in changes:
            store.truth.refuse(one.action, one.kind, one.id, one.name)
        warnings = (*ignored, *settings.warnings, *joined.warnings, *warnings_of(ledger, store, outcome, before, after))
    unchanged = before.count - sum(one.action != "create" for one in changes)
    left = () if wish.prune else _left_alone(joined)
    return ImportPlan(changes, unchanged, left, tuple(warnings), tuple(new_keys), before.tag, before.revision, outcome)


def apply_import(store: ConfigStore, wish: Wish, *, tag: str | None = None, reason: str = "import") -> ImportPlan:
    """Do it, in one transaction with a row of the audit log for each thing; what was spent stays.

    `tag` is that of the plan somebody has seen. Raises PreconditionFailed when the configuration is not as it was then, and as
    `plan_import`; nothing is changed then.
    """
    for _ in range(_TRIES):
        made = plan_import(store, wish)
        if tag is not None and made.tag != tag:
            raise PreconditionFailed(
                "somebody changed the configuration after this plan was made; look at the new plan, then import"
            )
        if not made.changes or made.outcome is None:
            return made
        try:
            with store.changing() as connection:
                if governance_revision(connection) != made.revision:
                    raise _Overtaken
                perform(connection, made.outcome, reason=reason)
                for one in made.changes:
                    store.truth.refuse(one.action, one.kind, one.id, one.name)
                    _note(store, connection, one, reason)
            return made
        except _Overtaken:
            continue
    raise Conflict("the configuration is being changed all the time; nothing was imported, try again")


def _nothing_to_do(before: Whole, joined: Joined, warnings: tuple[str, ...], *, prune: bool) -> ImportPlan:
    left = () if prune else _left_alone(joined)
    return ImportPlan((), before.count, left, warnings, tag=before.tag, revision=before.revision)


def _left_alone(joined: Joined) -> tuple[Change, ...]:
    return tuple(
        Change("delete", kind, thing, _name(document), document)
        for kind in KINDS
        for thing, document in joined.unnamed.get(kind, {}).items()
    )


class _Overtaken(Exception):
    """Somebody was quicker."""


def _note(store: ConfigStore, connection: Connection, one: Change, reason: str) -> None:
    edit = Edit(connection, one.action, one.kind, one.id, reason)
    if one.secret_changed:
        edit.details = {"value": "changed"}
    write_audit_row(connection, store.actor, edit, one.before, one.after, at_ms=store.clock.now_ms())


@contextmanager
def _named(source: str) -> Iterator[None]:
    """Errors that name a place in the document say which document, once."""
    try:
        yield
    except UserError as error:
        if str(error).startswith(f"{source}: "):
            raise
        raise type(error)(f"{source}: {error}") from None


def _settings(document: Json, wish: Wish) -> tuple[Settings, list[str]]:
    """The governance of the document, read as config.json is, and what of the rest is left out."""
    elsewhere = {*known_keys(Settings), *Settings.unimplemented} - _KEPT
    ignored = [
        f"{name} is no part of the governance and is not imported: it belongs into config.json"
        for name in document if name in elsewhere
    ]  # fmt: skip
    kept = {name: value for name, value in document.items() if name not in elsewhere and name != "prompts"}
    return settings_from(kept, wish.environ, source=wish.source), ignored


def _check_reach(store: ConfigStore, document: Json) -> None:
    """Values of virtual keys are looked up when the document is read, and shown: not from places out of reach."""
    governance = document.get("governance")
    keys = governance.get("virtual_keys") if isinstance(governance, dict) else None
    if store.actor.method not in FROM_AFAR or not isinstance(keys, list | tuple):
        return
    for index, key in enumerate(keys):
        if isinstance(key, dict) and key.get("value"):
            with suppress(ValueError):  # what is no secret at all is told when the document is read
                store.reach.check(parse_secret(key["value"]), f"governance.virtual_keys[{index}].value")


def _with_values(store: ConfigStore, plan: FilePlan, joined: Joined) -> tuple[FilePlan, list[tuple[str, str]]]:
    """Fresh values for new keys that have none, and what they are."""
    keys, made = list(plan.virtual_keys), []
    for index, key in enumerate(keys):
        if f"governance.virtual_keys[{index}]" in joined.fresh_keys:
            value = new_key_value(store.entropy)
            keys[index] = key.model_copy(update={"value": SecretText(value)})
            made.append((key.name, value))
    return replace(plan, virtual_keys=tuple(keys)), made


def _prune(store: ConfigStore, joined: Joined) -> None:
    """Deletes what the file does not name, what refers to others first."""
    for kind in reversed(KINDS):
        for thing in joined.unnamed.get(kind, {}):
            if kind == "provider_limits":
                with store.changing() as connection:
                    drop_caps(connection, Scope.PROVIDER, thing)
            else:
                _DELETE[kind](store, thing)


_DELETE = {
    "provider": change.delete_provider,
    "customer": change.delete_customer,
    "team": change.delete_team,
    "virtual_key": change.delete_virtual_key,
    "model_config": delete_model_config,
    "routing_rule": delete_routing_rule,
    "pricing_override": delete_pricing_override,
    "prompt": delete_prompt,
}


def _put_prompts(store: ConfigStore, connection: Connection, joined: Joined) -> None:
    entries = joined.document.get("prompts", [])
    if not isinstance(entries, list):
        raise UserError("prompts: must be a list")
    for index, entry in enumerate(entries):
        path = f"prompts[{index}]"
        if path in joined.unchanged:
            continue
        try:
            spec = PromptSpec.model_validate(entry)
        except ValidationError as error:
            found = problems(PromptSpec, error)
            raise UserError("; ".join(f"{path}.{one}" if one.path else f"{path}: {one}" for one in found)) from None
        before = find_prompt(connection, spec.id) if spec.id else None
        try:
            put_prompt(store, connection, spec, before)
        except UserError as error:
            raise type(error)(f"{path}: {error}") from None


def _read(stage: Stage) -> Whole:
    with stage.store.reading() as (connection, ledger):
        return read_whole(connection, ledger, revision=0)


def _secrets_of(outcome: Outcome) -> set[tuple[str, str]]:
    """(kind, id) of things whose rows with secrets are written."""
    found = set()
    for difference in outcome.tables:
        if difference.table.name in _SECRET_COLUMNS:
            owner, secret = (difference.table.columns.index(column) for column in _SECRET_COLUMNS[difference.table.name])
            for row, old in zip(difference.written, difference.replaced, strict=True):
                if old is not None and row[secret] != old[secret]:
                    found.add((_OF[difference.table.name], str(row[owner])))
    return found


def _changes(before: Whole, after: Whole, secrets: set[tuple[str, str]]) -> Iterator[Change]:
    for kind in KINDS:
        was, now = before.documents.get(kind, {}), after.documents.get(kind, {})
        for thing, document in now.items():
            old = was.get(thing)
            if old is None:
                yield Change("create", kind, thing, _name(document), None, document)
            elif old != document or (kind, thing) in secrets:
                fields = tuple(differences(old, document))
                yield Change("update", kind, thing, _name(document), old, document, fields, (kind, thing) in secrets)
        for thing, document in was.items():
            if thing not in now:
                yield Change("delete", kind, thing, _name(document), document)


def _name(document: Json) -> str:
    return str(document.get("name") or document.get("model_name") or document.get("id"))


def differences(before: Any, after: Any, path: str = "") -> Iterator[FieldChange]:
    """Field by field what is different between two documents; items of lists are matched by id."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in dict.fromkeys([*before, *after]):
            if before.get(name) != after.get(name):
                yield from differences(before.get(name), after.get(name), f"{path}.{name}" if path else name)
    elif _has_ids(before) and _has_ids(after):
        was, now = ({item["id"]: item for item in items or ()} for items in (before, after))
        for thing in dict.fromkeys([*was, *now]):
            if was.get(thing) != now.get(thing):
                yield from differences(was.get(thing), now.get(thing), f"{path}[{_label(now.get(thing) or was[thing])}]")
        if [thing for thing in was if thing in now] != [thing for thing in now if thing in was]:
            yield FieldChange(f"{path}, their order", [_label(item) for item in before], [_label(item) for item in after])
    else:
        yield FieldChange(path, before, after)


def _has_ids(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(item, dict) and "id" in item for item in value))


def _label(item: Json) -> str:
    said = item.get("name") or item.get("provider") or item.get("reset_duration") or item.get("model_name")
    return str(said or ("prepaid" if "max_limit" in item else item["id"]))
