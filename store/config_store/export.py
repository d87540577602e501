"""The whole governance as a text that people keep in version control: TOML, or JSON, in the shape of config.json.

The same store gives the same bytes: nothing in it is a time, and everything has its place. Money is written digit by digit.
"""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal

import tomli_w

from store.config_store import read
from store.config_store.documents import Json
from store.config_store.store import ConfigStore
from store.config_store.whole import Whole, read_whole
from store.database import Connection, governance_revision
from store.version import VERSION

Format = Literal["toml", "json"]

SECTIONS: Mapping[str, str] = {
    "customer": "customers",
    "team": "teams",
    "virtual_key": "virtual_keys",
    "provider_limits": "providers",
    "model_config": "model_configs",
    "routing_rule": "routing_rules",
    "pricing_override": "pricing_overrides",
}
"""Kind → its list under `governance`, as in config.json. Providers stand under `providers`, prompts under `prompts`."""

_HEADER = """\
# The governance of a Tollgate gateway: providers, customers, teams, virtual keys, budgets, limits, rules, prices, prompts.
# Written by "tollgate export" of Tollgate {version}. Apply it with: tollgate import FILE   (it shows what would change first)
#
# Amounts are US dollars. What is missing has its default: a missing allowed_models or key_ids is everything, an empty one nothing;
# a virtual key without provider_configs may call nothing.
# Not in here: what was spent, runs, logs, and the settings of config.json (stores, gateway, console, client).
"""
_WITHOUT_SECRETS = """\
# Secrets are not in here. A value such as "…1a2b" or "sk-bf-…1a2b" is a hint and means: as it is in the store. Where the store has
# no such key, write the value itself, env.NAME or file:PATH. References are kept as they are.
"""
_WITH_SECRETS = """\
# THIS FILE HOLDS SECRETS: provider keys in clear, and virtual keys where the store can read them. Keep it as you keep those.
"""


def export_document(store: ConfigStore, *, secrets: bool = False) -> Json:
    """Everything in the shape of config.json. With `secrets` values stand in place of hints, where the store can read them.

    Raises UserError when a secret cannot be opened.
    """
    with store.reading() as (connection, ledger):
        whole = read_whole(connection, ledger, revision=governance_revision(connection))
        made = assembled(whole)
        if secrets:
            _put_secrets(store, connection, made)
    return made


def assembled(whole: Whole) -> Json:
    """The documents of everything at their places."""
    found = whole.documents
    return {
        "providers": {
            name: {field: value for field, value in document.items() if field != "name"}
            for name, document in found["provider"].items()
        },
        "governance": {section: list(found.get(kind, {}).values()) for kind, section in SECTIONS.items()},
        "prompts": list(found["prompt"].values()),
    }


def export_text(store: ConfigStore, form: Format, *, secrets: bool = False) -> str:
    """The export, ready to be written to a file. Raises as `export_document`."""
    document = export_document(store, secrets=secrets)
    return json_text(document) if form == "json" else toml_text(document, secrets=secrets)


def toml_text(document: Json, *, secrets: bool = False) -> str:
    """A document as TOML, with comments on top that say what it is."""
    head = _HEADER.format(version=VERSION) + (_WITH_SECRETS if secrets else _WITHOUT_SECRETS)
    made = plain(document)
    # Texts of several lines are written over several lines, but then a carriage return would be lost.
    multiline = not _has_carriage_return(made)
    return f"{head}\n{tomli_w.dumps(made, multiline_strings=multiline, indent=2)}"


def json_text(document: Json) -> str:
    """A document as indented JSON, amounts digit by digit."""
    return _json(plain(document), "") + "\n"


class _Digits(Decimal):
    """A Decimal that is written without an exponent."""

    def __str__(self) -> str:
        return format(self, "f")


def plain(value: Any) -> Any:
    """Numbers as people write them: whole ones without a point, others digit by digit; no nulls, which TOML does not have."""
    if isinstance(value, bool) or isinstance(value, int | str):
        return value
    if isinstance(value, float | Decimal):
        exact = Decimal(repr(value)) if isinstance(value, float) else value
        return int(exact) if exact == exact.to_integral_value() else _Digits(exact.normalize())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items() if item is not None}
    return [plain(item) for item in value]


def _has_carriage_return(value: Any) -> bool:
    if isinstance(value, str):
        return "\r" in value
    if isinstance(value, Mapping):
        return any(_has_carriage_return(item) for item in value.values())
    return isinstance(value, list) and any(_has_carriage_return(item) for item in value)


def _json(value: Any, indent: str) -> str:
    inner = indent + "  "
    if isinstance(value, _Digits):
        return str(value)
    if isinstance(value, dict) and value:
        rows = [f"{inner}{json.dumps(key, ensure_ascii=False)}: {_json(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return "[\n" + ",\n".join(inner + _json(item, inner) for item in value) + f"\n{indent}]"
    if isinstance(value, list):
        return "[" + ", ".join(_json(item, inner) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def _put_secrets(store: ConfigStore, connection: Connection, made: Json) -> None:
    for provider in read.providers(connection):
        shown = made["providers"][provider.name]
        values = {key.id: store.vault.open(key.secret) if key.sealed else key.secret for key in provider.keys}
        for key in shown.get("keys", ()):
            key["value"] = values[key["id"]]
        if provider.extra_headers:
            opened = {name: store.vault.open_marked(value) for name, value in provider.extra_headers}
            shown["network_config"]["extra_headers"] = opened
    known = {key.id: key.value for key in read.virtual_keys(connection) if key.value is not None}
    for key in made["governance"]["virtual_keys"]:
        key["value"] = known.get(key["id"], key["value"])
