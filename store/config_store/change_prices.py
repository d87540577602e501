"""Changes of pricing overrides, each in one transaction. They hold for calls that begin afterwards; what was booked stays."""

from collections.abc import Mapping
from dataclasses import replace

from pydantic import ValidationError

from store.config_store import read
from store.config_store.json_text import dumps
from store.config_store.problems import join_problems, nearest, problems
from store.config_store.records import PricingOverrideRecord
from store.config_store.rows import names_text
from store.config_store.specs import Spec
from store.config_store.specs_prices import ID_NAMES, SCOPE_IDS, PricingOverridePatch, PricingOverrideSpec, prices_of
from store.config_store.store import ConfigStore
from store.database import Connection
from store.errors import Conflict, NotFound, UserError

KIND = "pricing_override"


def create_pricing_override(store: ConfigStore, spec: PricingOverrideSpec) -> PricingOverrideRecord:
    """Make an override. Raises UserError, Conflict."""
    with store.editing("create", KIND) as edit:
        record = put_pricing_override(store, edit.connection, spec, before=None)
        edit.id = record.id
        return record


def update_pricing_override(store: ConfigStore, override_id: str, patch: PricingOverridePatch) -> PricingOverrideRecord:
    """Change an override; what the document does not name stays. Raises NotFound, UserError, Conflict."""
    with store.editing("update", KIND, override_id) as edit:
        before = find_pricing_override(edit.connection, override_id)
        spec = _merged(before, patch)
        return put_pricing_override(store, edit.connection, spec, before=before)


def delete_pricing_override(store: ConfigStore, override_id: str) -> None:
    """Delete an override. Raises NotFound."""
    with store.editing("delete", KIND, override_id) as edit:
        find_pricing_override(edit.connection, override_id)
        edit.connection.execute("DELETE FROM pricing_overrides WHERE id = ?", (override_id,))


def find_pricing_override(connection: Connection, override_id: str) -> PricingOverrideRecord:
    """One override. Raises NotFound."""
    found = next((record for record in read.pricing_overrides(connection) if record.id == override_id), None)
    if found is None:
        raise NotFound(f"there is no pricing override {override_id!r}")
    return found


def known_pricing_override(connection: Connection, spec: PricingOverrideSpec) -> PricingOverrideRecord | None:
    """The override that a document means: by its id, else by its name."""
    records = read.pricing_overrides(connection)
    by_id = next((record for record in records if record.id == spec.id), None)
    return by_id or next((record for record in records if spec.id is None and record.name == spec.name), None)


def put_pricing_override(
    store: ConfigStore,
    connection: Connection,
    spec: PricingOverrideSpec,
    *,
    before: PricingOverrideRecord | None,
    path: str = "",
) -> PricingOverrideRecord:
    """Make an override, or bring `before` to what the document says, inside a transaction. Raises UserError, Conflict."""
    where = f"{path}." if path else ""
    now_ms = store.clock.now_ms()
    record = PricingOverrideRecord(
        id=before.id if before else spec.id or store.ids.new(),
        name=spec.name,
        scope_kind=spec.scope_kind,
        match_type=spec.match_type,
        pattern=spec.pattern,
        request_types=spec.request_types,
        patch=_texts(spec.prices),
        created_ms=before.created_ms if before else now_ms,
        updated_ms=now_ms,
        **_resolved(store, connection, {name: getattr(spec, name) for name in ID_NAMES}, where),
    )
    if connection.execute("SELECT 1 FROM pricing_overrides WHERE name = ? AND id <> ?", (record.name, record.id)):
        raise Conflict(f"{where}name: there is already a pricing override named {record.name!r}; choose another name")
    if before is None and connection.execute("SELECT 1 FROM pricing_overrides WHERE id = ?", (record.id,)):
        raise Conflict(f"{where}id: there is already a pricing override {record.id!r}; choose another id, or leave it out")
    if before is None or replace(before, updated_ms=now_ms) != record:
        _write(connection, record)
    return record


def drop_overrides_of(
    connection: Connection, *, virtual_key_id: str = "", provider_id: str = "", provider_key_id: str = ""
) -> None:
    """With a key or a provider go the overrides that were for it alone; an empty id means none."""
    for column, wanted in (
        ("virtual_key_id", virtual_key_id),
        ("provider_id", provider_id),
        ("provider_key_id", provider_key_id),
    ):
        if wanted:
            connection.execute(f"DELETE FROM pricing_overrides WHERE {column} = ?", (wanted,))


def _merged(before: PricingOverrideRecord, patch: PricingOverridePatch) -> PricingOverrideSpec:
    """The whole document after a change; ids that a new scope does not need go with the old one."""
    fields = ("name", "scope_kind", "match_type", "pattern", "request_types")
    document = {name: given if (given := getattr(patch, name)) is not None else getattr(before, name) for name in fields}
    for name in ID_NAMES:
        said = getattr(patch, name)
        kept = getattr(before, name) if name in SCOPE_IDS[document["scope_kind"]] else None
        document[name] = (said or None) if patch.given(name) and said is not None else kept
    prices = prices_of(patch.prices) if patch.prices is not None else dict(before.patch)
    confirmed = patch.confirm_high_prices or patch.prices is None  # what is there already was confirmed then
    return read_spec(document | {"patch": prices, "confirm_high_prices": confirmed})


def read_spec(document: Mapping[str, object]) -> PricingOverrideSpec:
    """A document as an override. Raises UserError with paths."""
    try:
        return PricingOverrideSpec.model_validate(document)
    except ValidationError as error:
        raise UserError(join_problems(problems(PricingOverrideSpec, error))) from None


def _texts(patch: Spec | None) -> tuple[tuple[str, str], ...]:
    """Prices as plain digits without idle zeros, in one order: equal prices are equal texts."""
    return tuple((name, plain_price(f"{usd:f}")) for name, usd in prices_of(patch).items())


def plain_price(text: str) -> str:
    """Digits without zeros at the end: `0.0000025`."""
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def _resolved(store: ConfigStore, connection: Connection, ids: Mapping[str, str | None], where: str) -> dict[str, str | None]:
    """The ids of what a document names by id or name. Raises UserError."""
    key_id, provider_id, provider_key_id = (ids[name] for name in ID_NAMES)
    made: dict[str, str | None] = dict.fromkeys(ID_NAMES)
    if key_id:
        key = read.virtual_key(connection, key_id)
        if key is None:
            raise UserError(f"{where}virtual_key_id: there is no virtual key {key_id!r}")
        made["virtual_key_id"] = key.id
    records = read.providers(connection) if provider_id or provider_key_id else ()
    if provider_id:
        known = sorted({*store.builtin, *(record.name for record in records)})
        if provider_id not in known:
            raise UserError(f"{where}provider_id: there is no provider {provider_id!r}; {nearest(provider_id, known)}")
        made["provider_id"] = provider_id
    if provider_key_id:
        keys = [key for record in records for key in record.keys if not provider_id or key.provider == provider_id]
        found = next((key for key in keys if key.id == provider_key_id), None)
        named = [key for key in keys if key.name == provider_key_id]
        if found is None and len(named) > 1:
            raise UserError(f"{where}provider_key_id: several providers have a key named {provider_key_id!r}; give its id")
        if found is None and not named:
            whose = f" of provider {provider_id!r}" if provider_id else ""
            raise UserError(f"{where}provider_key_id: there is no provider key {provider_key_id!r}{whose}")
        made["provider_key_id"] = (found or named[0]).id
    return made


def _write(connection: Connection, record: PricingOverrideRecord) -> None:
    values: dict[str, object] = {
        "id": record.id,
        "name": record.name,
        "scope_kind": record.scope_kind,
        "virtual_key_id": record.virtual_key_id or "",
        "provider_id": record.provider_id or "",
        "provider_key_id": record.provider_key_id or "",
        "match_type": record.match_type,
        "pattern": record.pattern,
        "request_types": names_text(record.request_types),
        "patch": dumps(dict(record.patch)).decode(),
        "created_ms": record.created_ms,
        "updated_ms": record.updated_ms,
    }
    changes = ", ".join(f"{column} = excluded.{column}" for column in values if column not in ("id", "created_ms"))
    connection.execute(
        f"INSERT INTO pricing_overrides ({', '.join(values)}) VALUES ({', '.join('?' * len(values))}) "
        f"ON CONFLICT (id) DO UPDATE SET {changes}",
        tuple(values.values()),
    )
