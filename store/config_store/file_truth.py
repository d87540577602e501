"""Which kinds of things config.json owns while `source_of_truth` is `config.json`: nothing else may change those. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from store.errors import Conflict

if TYPE_CHECKING:
    from store.settings import Settings

SECTIONS: Mapping[str, str] = {
    "provider": "providers",
    "customer": "governance.customers",
    "team": "governance.teams",
    "virtual_key": "governance.virtual_keys",
    "provider_limits": "governance.providers",
    "model_config": "governance.model_configs",
    "routing_rule": "governance.routing_rules",
    "pricing_override": "governance.pricing_overrides",
}
"""Kind of thing → where the file has them."""
_OF_SCOPE: Mapping[str, str] = {
    "provider_config": "virtual_key",
    "virtual_key_model": "virtual_key",
    "virtual_key": "virtual_key",
    "team": "team",
    "customer": "customer",
    "provider": "provider_limits",
    "model": "model_config",
}
"""Scope of a cap → the kind of thing that carries it."""
_NEW_VALUES = frozenset({"rotate", "end overlap"})


@dataclass(frozen=True, slots=True)
class FileTruth:
    """What the file owns. Nothing, unless the file says that it is the source of truth."""

    kinds: frozenset[str] = frozenset()
    valued: frozenset[str] = frozenset()
    """Ids and names of virtual keys whose value is in the file too."""

    def refuse(self, action: str, kind: str, *words: str, scope: str | None = None) -> None:
        """Raises Conflict for an edit of what the file owns: something of a kind, with its id and name.

        `scope` is that of a cap, which belongs to its owner. A virtual key whose value the file leaves to the store may be rotated.
        """
        owner = _OF_SCOPE.get(scope, kind) if scope is not None else kind
        if owner not in self.kinds or (owner == "virtual_key" and action in _NEW_VALUES and self.valued.isdisjoint(words)):
            return
        raise Conflict(
            f'{SECTIONS[owner]} of config.json say what there is (source_of_truth is "config.json"): change the file, '
            "then restart the gateway or send it SIGHUP"
        )


def file_truth(settings: "Settings") -> FileTruth:
    """What this file owns: the kinds whose sections it has, even empty ones."""
    if settings.source_of_truth != "config.json" or settings.file_only:
        return FileTruth()
    keys = settings.governance.virtual_keys
    return FileTruth(
        frozenset(kind for kind in SECTIONS if is_present(settings, kind)),
        frozenset(word for key in keys if key.value is not None for word in (key.id, key.name) if word),
    )


def is_present(settings: "Settings", kind: str) -> bool:
    """Whether the file has the section of this kind, be it empty."""
    place, _, name = SECTIONS[kind].rpartition(".")
    return name in (settings.governance if place else settings).model_fields_set


def is_empty(settings: "Settings", kind: str) -> bool:
    """Whether the file has the section of this kind, and nothing in it."""
    place, _, name = SECTIONS[kind].rpartition(".")
    return is_present(settings, kind) and not getattr(settings.governance if place else settings, name)
