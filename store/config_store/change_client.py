"""Changes of the `client` settings while the gateway runs, and the settings that are in force with them."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from store.config_store.client_config import CLIENT_CONFIG, CLIENT_ID, LOGGED_FROM, stored_client
from store.config_store.fields import Bool, Int, Names
from store.config_store.json_text import dumps
from store.config_store.meta import set_meta
from store.config_store.specs import Spec
from store.config_store.store import ConfigStore
from store.database import Connection
from store.errors import UserError
from store.ledger.history import newest_sequence
from store.settings import Client, Settings


def _origin(value: Any) -> Any:
    """`https://app.example.com`, or `*`. Raises ValueError."""
    if isinstance(value, str) and value != "*" and not value.startswith(("http://", "https://")):
        raise ValueError(f"{value!r} is no web origin; write it like https://app.example.com")
    return value


def _origins(value: Any) -> Any:
    return [_origin(item) for item in value] if isinstance(value, list | tuple) else value


class ClientPatch(Spec):
    """Changes to the `client` settings: absent fields stay, null gives the file's value back its place."""

    unimplemented = Client.unimplemented

    allowed_origins: Annotated[Names, BeforeValidator(_origins)] | None = None
    enable_logging: Bool | None = None
    disable_content_logging: Bool | None = None
    log_retention_days: Annotated[Int, Field(ge=1, le=36_500)] | None = None
    enforce_auth_on_inference: Bool | None = None
    allow_direct_keys: Bool | None = None
    routing_chain_max_depth: Annotated[Int, Field(ge=1, le=1_000)] | None = None


def update_client(store: ConfigStore, settings: Settings, patch: ClientPatch) -> dict[str, Any]:
    """Keep these fields; returns all that are kept. What is as it was in force already, and not kept, is not kept now.

    Raises UserError for a field that the file makes void, PreconditionFailed, Conflict in file-only mode.
    """
    with store.editing("update", CLIENT_CONFIG, CLIENT_ID) as edit:
        stored = stored_client(edit.connection)
        in_force = client_in_force(settings, stored)
        for name in patch.model_fields_set:
            value = getattr(patch, name)
            if value is None:
                stored.pop(name, None)
            elif name in stored or value != getattr(in_force, name):
                _refuse_void(settings, name, value)
                stored[name] = value
        _keep(edit.connection, stored)
        if not in_force.enable_logging and client_in_force(settings, stored).enable_logging:
            set_meta(edit.connection, LOGGED_FROM, str(newest_sequence(edit.connection)))
        return stored


def give_back_to_file(store: ConfigStore, connection: Connection, settings: Settings) -> None:
    """`--reseed`: the fields that the file gives are the file's again, inside a transaction."""
    stored = stored_client(connection)
    left = {name: value for name, value in stored.items() if name not in settings.client.model_fields_set}
    if left != stored:
        with store.audited(connection, "reseed", CLIENT_CONFIG, CLIENT_ID):
            _keep(connection, left)


def client_in_force(settings: Settings, stored: Mapping[str, Any]) -> Client:
    """The `client` section with what the store keeps of it. What this version does not know, or cannot take, is left out."""
    try:
        kept = ClientPatch.model_validate({name: value for name, value in stored.items() if name in ClientPatch.model_fields})
    except ValidationError:
        return settings.client
    return settings.client.model_copy(update={name: getattr(kept, name) for name in kept.model_fields_set})


def settings_in_force(settings: Settings, stored: Mapping[str, Any]) -> Settings:
    """The settings with that section."""
    return settings.model_copy(update={"client": client_in_force(settings, stored)}) if stored else settings


def _keep(connection: Connection, stored: Mapping[str, Any]) -> None:
    set_meta(connection, CLIENT_CONFIG, dumps(dict(stored)).decode() if stored else None)


def _refuse_void(settings: Settings, name: str, value: Any) -> None:
    if name == "log_retention_days" and settings.logs_store.retention_days is not None:
        raise UserError(
            "client_config.log_retention_days: has no effect while config.json says logs_store.retention_days; change it there"
        )
    if name == "enable_logging" and value and not settings.logs_store.enabled:
        raise UserError(
            "client_config.enable_logging: has no effect while config.json says logs_store.enabled false; change it there"
        )
