"""A file that is to be imported, joined with what the store has: which of its entries mean which things, and which say nothing new.

An entry means the thing with its id, else the one with its name. Hints in place of secrets are taken out: the store keeps its own.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from store.config_store import read
from store.config_store.documents import HIDDEN, Json
from store.config_store.export import SECTIONS, plain
from store.config_store.keys import hash_key_value
from store.config_store.records import ProviderKeyRecord, ProviderRecord
from store.config_store.secret_text import is_reference
from store.config_store.store import ConfigStore
from store.config_store.whole import Whole
from store.database import Connection
from store.errors import UserError

_MOST_PROBLEMS = 8
_REFERENCES = {
    "team_id": "team", "customer_id": "customer", "virtual_key_id": "virtual_key", "provider_key_id": "provider_key",
    "key_id": "provider_key", "model_config_id": "model_config",
}  # fmt: skip
_NOT_REFERRED_TO = ("provider_limits", "routing_rule", "pricing_override", "prompt")
_ROWS_OF_THEIR_OWN = ("budgets", "rate_limits")
"""Sections of config.json whose rows belong to other entries: with them no entry can be judged by itself."""


@dataclass(slots=True)
class Joined:
    """The document to be applied, and what was found out about it."""

    document: Json
    """The file's entries first, then those of the store that it does not name, so that references can be checked."""
    unchanged: set[str] = field(default_factory=set)
    """Paths of entries that are in the store exactly like that, or that are not the file's."""
    unnamed: dict[str, dict[str, Json]] = field(default_factory=dict)
    """Kind → id → document of what is in the store and not in the file, of the sections that the file has."""
    fresh_keys: dict[str, str] = field(default_factory=dict)
    """Path → name of virtual keys that are new and come without a value."""
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    is_idle: bool = False
    """Every entry of the file is in the store exactly like that."""
    moved_ids: dict[tuple[str, str], str] = field(default_factory=dict)
    """(kind, id in the file) → id in the store, of things that were found by their name."""


def join(
    store: ConfigStore, connection: Connection, document: Json, whole: Whole, *, prune: bool = False, new_values: bool = False
) -> Joined:
    """The document with everything that the store knows better. Raises UserError for hints of secrets that nobody has."""
    joined = Joined(copy.deepcopy(document))
    governance = joined.document.setdefault("governance", {})
    if not isinstance(governance, dict):
        return joined  # the parser says what is wrong with it
    secrets = _Secrets(store, connection, new_values)
    _match_all(joined, governance, whole)
    _rewrite(joined.document, joined.moved_ids)
    judged = not any(governance.get(section) for section in _ROWS_OF_THEIR_OWN)
    _providers(joined, whole, secrets, judged=judged, prune=prune)
    for kind, section in SECTIONS.items():
        _section(joined, governance, kind, section, whole.documents[kind], secrets, judged=judged, prune=prune)
    _section(joined, joined.document, "prompt", "prompts", whole.documents["prompt"], secrets, judged=judged, prune=prune)
    if judged:
        _shorten(joined, governance)
        joined.is_idle = _entries(joined.document, governance) <= joined.unchanged
    if joined.problems:
        more = len(joined.problems) - _MOST_PROBLEMS
        raise UserError("; ".join(joined.problems[:_MOST_PROBLEMS]) + (f"; and {more} more" if more > 0 else ""))
    return joined


def _shorten(joined: Joined, governance: Json) -> None:
    """Of what stays as it is only what others may refer to: ten thousand keys need not be read again."""
    for section in ("customers", "teams", "virtual_keys"):
        entries: Any = governance.get(section)
        for index, entry in _objects(entries):
            if f"governance.{section}[{index}]" in joined.unchanged:
                entries[index] = _named(entry)
    for name, entry in _named_objects(joined.document.get("providers")):
        if f"providers.{name}" in joined.unchanged:
            joined.document["providers"][name] = {"keys": [_named(key) for _, key in _objects(entry.get("keys"))]}


def _named(entry: Json) -> Json:
    return {word: entry[word] for word in ("id", "name", "team_id", "customer_id") if word in entry}


def _entries(document: Json, governance: Json) -> set[str]:
    """The path of every entry, and of what else stands there."""
    providers = document.get("providers")
    found = {f"providers.{name}" for name in providers} if isinstance(providers, dict) else {"providers"}
    for section, entries in governance.items():
        found |= {f"governance.{section}[{index}]" for index in range(len(entries))} if isinstance(entries, list) else {section}
    prompts = document.get("prompts")
    if prompts is not None:
        found |= {f"prompts[{index}]" for index in range(len(prompts))} if isinstance(prompts, list) else {"prompts"}
    return found | {name for name in document if name not in ("providers", "governance", "prompts")}


def _match_all(joined: Joined, governance: Json, whole: Whole) -> None:
    """Gives each entry the id of the thing it means."""
    for name, entry in _named_objects(joined.document.get("providers")):
        known = {key["id"]: key for key in whole.documents["provider"].get(name, {}).get("keys", ())}
        _match(joined, "provider_key", entry.get("keys"), known, _name)
    for kind, section in SECTIONS.items():
        if kind == "provider_limits":
            continue
        _rewrite(governance.get(section), joined.moved_ids)
        key = {"model_config": _model_target, "routing_rule": _rule_name}.get(kind, _name)
        _match(joined, kind, governance.get(section), whole.documents[kind], key)
    _match(joined, "prompt", joined.document.get("prompts"), whole.documents["prompt"], _name)


def _match(joined: Joined, kind: str, entries: Any, known: Mapping[str, Json], key: Callable[[Json], Any]) -> None:
    by_key = {key(document): document for document in known.values()}
    said = {entry.get("id") for _, entry in _objects(entries)}
    for _, entry in _objects(entries):
        file_id = entry.get("id")
        if isinstance(file_id, str) and file_id in known:
            continue
        try:
            found = by_key.get(key(entry))
        except TypeError:  # an entry of a wrong shape; the parser says so
            continue
        if found is None or found["id"] in said:
            continue
        if file_id is not None:
            joined.moved_ids[(kind, str(file_id))] = found["id"]
            _forget_ids(entry)  # those inside it are of the other store as well
        entry["id"] = found["id"]


def _name(entry: Json) -> Any:
    return entry.get("name")


def _model_target(entry: Json) -> Any:
    return entry.get("scope", "global"), entry.get("scope_id"), entry.get("model_name"), entry.get("provider")


def _rule_name(entry: Json) -> Any:
    return entry.get("scope", "global"), entry.get("scope_id"), entry.get("name")


def _forget_ids(value: Any) -> None:
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, dict):
            item.pop("id", None)
        if isinstance(item, dict | list):
            _forget_ids(item)


def _rewrite(value: Any, moved: Mapping[tuple[str, str], str]) -> None:
    """References to things that have another id in the store."""
    if not moved:
        return
    if isinstance(value, list):
        for item in value:
            _rewrite(item, moved)
    elif isinstance(value, dict):
        for name, item in value.items():
            if isinstance(item, dict | list) and name != "key_ids":
                _rewrite(item, moved)
            elif name == "key_ids" and isinstance(item, list):
                value[name] = [moved.get(("provider_key", one), one) if isinstance(one, str) else one for one in item]
            elif isinstance(item, str):
                kind = str(value.get("scope")) if name == "scope_id" else _REFERENCES.get(name, "")
                value[name] = moved.get((kind, item), item)


class _Secrets:
    """What the store knows of secrets, to tell a hint from a value and an old value from a new one."""

    def __init__(self, store: ConfigStore, connection: Connection, new_values: bool) -> None:
        self.new_values = new_values
        self._vault = store.vault
        self.providers: dict[str, ProviderRecord] = {record.name: record for record in read.providers(connection)}
        self.key_hashes = {
            row[0]: (row[1], row[2]) for row in connection.execute("SELECT id, value_hash, hint FROM virtual_keys")
        }  # fmt: skip

    def same(self, key: ProviderKeyRecord, written: str) -> bool:
        """Whether this is the secret that the store has."""
        return written == (self._vault.open(key.secret) if key.sealed else key.secret)

    def headers(self, record: ProviderRecord | None) -> dict[str, str]:
        """The header values that the store has."""
        return {name: self._vault.open_marked(value) for name, value in record.extra_headers} if record else {}


def _providers(joined: Joined, whole: Whole, secrets: _Secrets, *, judged: bool, prune: bool) -> None:
    entries = joined.document.get("providers")
    known = whole.documents["provider"]
    if entries is not None and not isinstance(entries, dict):
        return
    for name, entry in _named_objects(entries):
        path = f"providers.{name}"
        shown = _with_provider_secrets(joined, path, entry, secrets.providers.get(name), secrets)
        if judged and name in known and _says({"name": name, **shown}, known[name]):
            joined.unchanged.add(path)
    missing = {name: document for name, document in known.items() if name not in (entries or {})}
    if entries is not None:
        joined.unnamed["provider"] = missing
    if entries is None or not prune:
        kept = joined.document.setdefault("providers", {})
        for name, document in missing.items():
            kept[name] = {field: value for field, value in document.items() if field != "name"}
            joined.unchanged.add(f"providers.{name}")


def _with_provider_secrets(joined: Joined, path: str, entry: Json, record: ProviderRecord | None, secrets: _Secrets) -> Json:
    """Takes hints out of an entry; returns it as an export without secrets would show it."""
    shown = copy.deepcopy(entry)
    for (index, key), (_, mask) in zip(_objects(entry.get("keys")), _objects(shown.get("keys")), strict=True):
        value = key.get("value")
        known = next((one for one in record.keys if one.id == key.get("id")), None) if record else None
        if known is not None and value is None:
            mask["value"] = known.hint
        if not isinstance(value, str):
            continue
        if known is not None and not _is_hint(value) and secrets.same(known, value):
            mask["value"] = value if is_reference(value) else known.hint
            del key["value"]
        elif _is_hint(value):
            _take_out_hint(joined, f"{path}.keys[{index}]", key, mask, known.hint if known else None)
    network, masked = entry.get("network_config"), shown.get("network_config")
    if isinstance(network, dict) and isinstance(masked, dict) and isinstance(network.get("extra_headers"), dict):
        stored = secrets.headers(record)
        for name, value in network["extra_headers"].items():
            if value == HIDDEN and name not in stored:
                joined.problems.append(
                    f"{path}.network_config.extra_headers.{name}: is hidden in this file and not in the store; write its value"
                )
            elif stored.get(name) == value:
                network["extra_headers"][name] = masked["extra_headers"][name] = HIDDEN  # as it is
    return shown


def _section(
    joined: Joined, place: Json, kind: str, section: str, known: Mapping[str, Json], secrets: _Secrets, *,
    judged: bool, prune: bool,
) -> None:  # fmt: skip
    entries = place.get(section)
    if entries is not None and not isinstance(entries, list):
        return
    prefix = section if kind == "prompt" else f"governance.{section}"
    named: set[Any] = set()
    for index, entry in _objects(entries):
        path = f"{prefix}[{index}]"
        thing = entry.get("name") if kind == "provider_limits" else entry.get("id")
        named.add(thing)
        shown = _with_key_secret(joined, path, entry, secrets) if kind == "virtual_key" else entry
        if judged and isinstance(thing, str) and thing in known and _says(shown, known[thing]):
            joined.unchanged.add(path)
    missing = {thing: document for thing, document in known.items() if thing not in named}
    if entries is not None:
        joined.unnamed[kind] = missing
    if (entries is None or not prune) and kind not in _NOT_REFERRED_TO:
        kept: list[Json] = place.setdefault(section, [])
        for document in missing.values():
            joined.unchanged.add(f"{prefix}[{len(kept)}]")
            kept.append(_for_reference(document, joined, prune=prune))


def _with_key_secret(joined: Joined, path: str, entry: Json, secrets: _Secrets) -> Json:
    """Takes a hint out of a virtual key; returns the key as an export without secrets would show it."""
    shown = dict(entry)
    value = entry.get("value")
    key_hash, hint = secrets.key_hashes.get(entry.get("id"), (None, None))
    if hint is not None and value is None:
        shown["value"] = hint
    elif isinstance(value, str) and _is_hint(value):
        _take_out_hint(joined, path, entry, shown, hint, new_values=secrets.new_values)
    elif isinstance(value, str) and key_hash is not None and hash_key_value(value) == key_hash:
        shown["value"] = hint
        del entry["value"]
    if key_hash is None and entry.get("value") is None:
        joined.fresh_keys[path] = str(entry.get("name"))
    return shown


def _take_out_hint(joined: Joined, path: str, entry: Json, shown: Json, hint: str | None, *, new_values: bool = False) -> None:
    value = entry.pop("value")
    if hint is not None:
        if value != hint:
            joined.warnings.append(f"{path}.value: the secret in the store ({hint}) is not the one of the file ({value}); it stays")
        shown["value"] = hint
    elif not new_values:
        is_key = "virtual_keys" in path
        advice = "or leave the line out (or add --new-values) and one is made" if is_key else "or env.NAME or file:PATH"
        joined.problems.append(
            f"{path}.value: {value!r} is the hint of a secret that this store does not have; write its value, {advice}"
        )


def _for_reference(document: Json, joined: Joined, *, prune: bool) -> Json:
    """A thing of the store that the file does not name, without what only a secret's owner may write."""
    made = {field: value for field, value in document.items() if field != "value"}
    if prune:
        for name, kind in (("team_id", "team"), ("customer_id", "customer")):
            if made.get(name) in joined.unnamed.get(kind, {}):
                del made[name]
    return made


def _says(entry: Json, document: Json) -> bool:
    """Whether an entry is, field by field, what the store has."""
    try:
        return bool(plain(entry) == plain(document))
    except TypeError:
        return False


def _is_hint(value: str) -> bool:
    return "…" in value and not is_reference(value)


def _objects(value: Any) -> Iterator[tuple[int, Json]]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        yield from ((index, item) for index, item in enumerate(value) if isinstance(item, dict))


def _named_objects(value: Any) -> Iterator[tuple[str, Json]]:
    if isinstance(value, dict):
        yield from ((name, item) for name, item in value.items() if isinstance(item, dict))
