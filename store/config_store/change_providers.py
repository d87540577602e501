"""Changes of providers and their keys, each in one transaction. Secrets are sealed on the way in when the store is encrypted."""

import json
from dataclasses import replace

from pydantic import Field

from store.config_store import read
from store.config_store.change_caps import drop_caps
from store.config_store.change_models import remove_model_configs
from store.config_store.change_prices import drop_overrides_of
from store.config_store.documents import HIDDEN
from store.config_store.fields import Name, Names, Weight
from store.config_store.keys import fits_a_header
from store.config_store.problems import nearest
from store.config_store.reach import FROM_AFAR
from store.config_store.records import ProviderKeyRecord, ProviderRecord
from store.config_store.rows import names_text
from store.config_store.secret_text import Secret, SecretText
from store.config_store.specs import CustomProviderConfig, NetworkConfig, ProviderKeySpec, ProviderSpec, Spec
from store.config_store.store import ConfigStore
from store.database import Connection
from store.errors import Conflict, NotFound, UserError
from store.ledger.types import Scope


class ProviderPatch(Spec):
    """Changes to a provider: absent fields stay."""

    unimplemented = ProviderSpec.unimplemented
    read_only = ProviderSpec.read_only | {"keys"}

    network_config: NetworkConfig | None = None
    custom_provider_config: CustomProviderConfig | None = None
    hosts: Names | None = None


class ProviderKeyPatch(Spec):
    """Changes to a provider key: absent fields stay, a value that is absent, null or empty too."""

    unimplemented = ProviderKeySpec.unimplemented
    read_only = ProviderKeySpec.read_only | {"id"}

    name: Name | None = None
    value: Secret | None = Field(default=None)
    models: Names | None = None
    blacklisted_models: Names | None = None
    weight: Weight | None = None


def create_provider(store: ConfigStore, name: str, spec: ProviderSpec) -> ProviderRecord:
    """Configure a provider with its keys. Raises Conflict, UserError."""
    with store.editing("create", "provider") as edit:
        if read.provider(edit.connection, name) is not None:
            raise Conflict(f"the provider {name!r} is already configured; change it instead")
        edit.id = name
        return put_provider(store, edit.connection, name, spec, path="")


def put_provider(store: ConfigStore, connection: Connection, name: str, spec: ProviderSpec, *, path: str) -> ProviderRecord:
    """Make a provider, or bring it to what the document says, inside a transaction. Keys are matched by id, then name."""
    before = read.provider(connection, name)
    now_ms = store.clock.now_ms()
    record = ProviderRecord(
        name=name,
        base_provider=spec.custom_provider_config.base_provider_type if spec.custom_provider_config else None,
        base_url=spec.network_config.base_url,
        hosts=spec.hosts,
        extra_headers=_headers(store, spec.network_config, before),
        created_ms=before.created_ms if before else now_ms,
        updated_ms=now_ms,
    )
    _check(store, record, path)
    _write(connection, record)
    left = list(before.keys) if before else []
    for index, key in enumerate(spec.keys):
        known = next((old for old in left if old.id == key.id), None) or next((old for old in left if old.name == key.name), None)
        if known is not None:
            left.remove(known)
        _put_key(store, connection, name, key, known, f"{path}.keys[{index}]" if path else f"keys[{index}]")
    for old in left:
        drop_overrides_of(connection, provider_key_id=old.id)
        connection.execute("DELETE FROM provider_keys WHERE id = ?", (old.id,))
    return _get(connection, name)


def update_provider(store: ConfigStore, name: str, patch: ProviderPatch) -> ProviderRecord:
    """Change a provider; a built-in one that was not configured yet becomes so. Raises NotFound, UserError."""
    with store.editing("update", "provider", name) as edit:
        connection = edit.connection
        before = read.provider(connection, name)
        now_ms = store.clock.now_ms()
        if before is None:
            if name not in store.builtin:
                raise NotFound(f"there is no provider {name!r}")
            before = ProviderRecord(name=name, base_provider=None, created_ms=now_ms)
        network = patch.network_config
        after = replace(
            before,
            base_provider=(
                patch.custom_provider_config.base_provider_type if patch.custom_provider_config else before.base_provider
            ),
            base_url=network.base_url if network and network.given("base_url") else before.base_url,
            extra_headers=(
                _headers(store, network, before) if network and network.given("extra_headers") else before.extra_headers
            ),
            hosts=before.hosts if patch.hosts is None else patch.hosts,
            updated_ms=now_ms,
        )
        _check(store, after, "")
        _write(connection, after)
        return _get(connection, name)


def delete_provider(store: ConfigStore, name: str) -> ProviderRecord:
    """Forget a provider with its keys and its deployment-wide caps; one of no built-in name takes its model configs along.

    Raises NotFound.
    """
    with store.editing("delete", "provider", name) as edit:
        connection = edit.connection
        record = _get(connection, name)
        drop_caps(connection, Scope.PROVIDER, name)
        if name not in store.builtin:
            remove_model_configs(connection, provider=name)
            drop_overrides_of(connection, provider_id=name)
        for key in record.keys:
            drop_overrides_of(connection, provider_key_id=key.id)
        connection.execute("DELETE FROM provider_keys WHERE provider = ?", (name,))
        connection.execute("DELETE FROM providers WHERE name = ?", (name,))
        return record


def create_provider_key(store: ConfigStore, provider: str, spec: ProviderKeySpec) -> ProviderKeyRecord:
    """Add a credential; a built-in provider that was not configured yet becomes so. Raises NotFound, Conflict, UserError."""
    with store.editing("update", "provider", provider) as edit:
        connection = edit.connection
        if read.provider(connection, provider) is None:
            if provider not in store.builtin:
                raise NotFound(f"there is no provider {provider!r}")
            now_ms = store.clock.now_ms()
            _write(connection, ProviderRecord(name=provider, base_provider=None, created_ms=now_ms, updated_ms=now_ms))
        if any(key.name == spec.name for key in _get(connection, provider).keys):
            raise Conflict(f"{provider} already has a key named {spec.name!r}; choose another name")
        return _put_key(store, connection, provider, spec, None, "key")


def update_provider_key(store: ConfigStore, provider: str, key_id: str, patch: ProviderKeyPatch) -> ProviderKeyRecord:
    """Change a credential; without a new value the old one stays. Raises NotFound, Conflict, UserError."""
    with store.editing("update", "provider", provider) as edit:
        connection = edit.connection
        before = _key(connection, provider, key_id)
        if patch.name and patch.name != before.name and any(k.name == patch.name for k in _get(connection, provider).keys):
            raise Conflict(f"{provider} already has a key named {patch.name!r}; choose another name")
        after = replace(
            before,
            name=patch.name or before.name,
            models=before.models if patch.models is None else patch.models,
            blacklisted_models=before.blacklisted_models if patch.blacklisted_models is None else patch.blacklisted_models,
            weight=before.weight if patch.weight is None else patch.weight,
            updated_ms=store.clock.now_ms(),
        )
        if patch.value is not None and patch.value.written and patch.value.written != before.hint:
            after = _with_secret(store, after, patch.value)
        _write_key(connection, after)
        return after


def delete_provider_key(store: ConfigStore, provider: str, key_id: str) -> ProviderKeyRecord:
    """Forget a credential. Raises NotFound."""
    with store.editing("update", "provider", provider) as edit:
        connection = edit.connection
        record = _key(connection, provider, key_id)
        drop_overrides_of(connection, provider_key_id=record.id)
        connection.execute("DELETE FROM provider_keys WHERE id = ?", (record.id,))
        return record


def secret_hint(secret: SecretText) -> str:
    """What may be shown of a credential: the name of its variable or file, or its last four characters."""
    if secret.is_reference:
        return secret.written
    return f"…{secret.written[-4:]}" if len(secret.written) >= 12 else "…"


def _check(store: ConfigStore, record: ProviderRecord, path: str) -> None:
    prefix = f"{path}." if path else ""
    if not record.name or "/" in record.name or record.name != record.name.strip() or record.name == "*":
        raise UserError(f"{prefix or 'provider: '}a provider's name has no slash, star or space around it, as paths begin with it")
    if record.name in store.builtin and record.base_provider in (None, record.name):
        return
    if record.base_provider is None or record.base_provider not in store.builtin:
        families = sorted(store.builtin)
        raise UserError(
            f"{prefix}custom_provider_config.base_provider_type: {record.name!r} is no built-in provider, so say which one it "
            f"speaks like: {nearest(record.base_provider, families) if record.base_provider else ', '.join(families)}"
        )
    if record.base_url is None:
        raise UserError(f"{prefix}network_config.base_url: is required for {record.name!r}, which is no built-in provider")


def _put_key(
    store: ConfigStore,
    connection: Connection,
    provider: str,
    spec: ProviderKeySpec,
    before: ProviderKeyRecord | None,
    path: str,
) -> ProviderKeyRecord:
    if before is None and (spec.value is None or not spec.value.written):
        raise UserError(f"{path}.value: is required; write env.NAME to take it from the environment")
    key_id = before.id if before else spec.id or store.ids.new()
    if before is None and connection.execute("SELECT 1 FROM provider_keys WHERE id = ?", (key_id,)):
        raise Conflict(f"{path}.id: there is already a provider key with the id {key_id!r}; choose another, or leave it out")
    now_ms = store.clock.now_ms()
    record = ProviderKeyRecord(
        id=key_id,
        provider=provider,
        name=spec.name,
        secret=before.secret if before else "",
        sealed=before.sealed if before else False,
        hint=before.hint if before else "",
        models=spec.models,
        blacklisted_models=spec.blacklisted_models,
        weight=spec.weight,
        created_ms=before.created_ms if before else now_ms,
        updated_ms=now_ms,
    )
    if spec.value is not None and spec.value.written:
        record = _with_secret(store, record, spec.value, f"{path}.value")
    _write_key(connection, record)
    return record


def _with_secret(store: ConfigStore, record: ProviderKeyRecord, secret: SecretText, where: str = "value") -> ProviderKeyRecord:
    if not secret.is_reference and not fits_a_header(secret.written):
        raise UserError("value: a provider key has printable ASCII characters and no spaces around it, as it travels in a header")
    if store.actor.method in FROM_AFAR and secret.written != record.secret:
        store.reach.check(secret, where)
    sealed = store.vault.is_sealing and not secret.is_reference
    if sealed and record.sealed and store.vault.open(record.secret) == secret.written:
        return record  # sealed anew, the same secret would look like another one
    return replace(
        record,
        secret=store.vault.seal(secret.written) if sealed else secret.written,
        sealed=sealed,
        hint=secret_hint(secret),
    )


def _headers(store: ConfigStore, network: NetworkConfig, before: ProviderRecord | None) -> tuple[tuple[str, str], ...]:
    """Header values as the store keeps them: they may be credentials. One that comes back hidden stays what it is."""
    known = dict(before.extra_headers) if before else {}
    made = []
    for name, value in network.extra_headers.items():
        stays = name in known and value in (HIDDEN, store.vault.open_marked(known[name]))
        made.append((name, known[name] if stays else store.vault.seal_marked(value)))
    return tuple(made)


def _get(connection: Connection, name: str) -> ProviderRecord:
    record = read.provider(connection, name)
    if record is None:
        raise NotFound(f"there is no provider {name!r} configured")
    return record


def _key(connection: Connection, provider: str, key_id: str) -> ProviderKeyRecord:
    for record in _get(connection, provider).keys:
        if key_id in (record.id, record.name):
            return record
    raise NotFound(f"{provider} has no key {key_id!r}")


def _write(connection: Connection, record: ProviderRecord) -> None:
    connection.execute(
        "INSERT INTO providers (name, base_provider, base_url, hosts, extra_headers, created_ms, updated_ms) "
        "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET base_provider = excluded.base_provider, "
        "base_url = excluded.base_url, hosts = excluded.hosts, extra_headers = excluded.extra_headers, "
        "updated_ms = excluded.updated_ms",
        (
            record.name,
            record.base_provider,
            record.base_url,
            names_text(record.hosts),
            json.dumps(dict(record.extra_headers)),
            record.created_ms,
            record.updated_ms,
        ),
    )


def _write_key(connection: Connection, record: ProviderKeyRecord) -> None:
    connection.execute(
        "INSERT INTO provider_keys (id, provider, name, secret, sealed, hint, models, blacklisted_models, weight, created_ms, "
        "updated_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET name = excluded.name, "
        "secret = excluded.secret, sealed = excluded.sealed, hint = excluded.hint, models = excluded.models, "
        "blacklisted_models = excluded.blacklisted_models, weight = excluded.weight, updated_ms = excluded.updated_ms",
        (
            record.id,
            record.provider,
            record.name,
            record.secret,
            int(record.sealed),
            record.hint,
            names_text(record.models),
            names_text(record.blacklisted_models),
            record.weight,
            record.created_ms,
            record.updated_ms,
        ),
    )
