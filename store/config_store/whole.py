"""The whole governance as documents, read in bulk: what an export holds, and what an import is compared with."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from store.config_store import documents, read
from store.config_store.documents import Json
from store.config_store.json_text import dumps
from store.config_store.make_caps import Owner
from store.config_store.model_owners import shown_in
from store.config_store.read import Governance
from store.config_store.read_prompts import all_versions, prompt_page
from store.config_store.records import ModelConfigRecord
from store.database import Connection
from store.ledger.types import Scope

KINDS = (
    "provider", "customer", "team", "virtual_key", "provider_limits", "model_config", "routing_rule", "pricing_override", "prompt",
)  # fmt: skip
"""Every kind of thing, in the order in which they can be made: what is referred to comes first."""

Documents = Mapping[str, Mapping[str, Json]]
"""Kind → id (name for providers) → document, in the order in which an export names them."""


@dataclass(frozen=True, slots=True)
class Whole:
    """Everything at one instant."""

    documents: Documents
    revision: int

    @property
    def count(self) -> int:
        """How many things there are."""
        return sum(len(found) for found in self.documents.values())

    @property
    def tag(self) -> str:
        """Changes with anything that a document says, and with nothing else: not with what is spent, nor with runs."""
        return hashlib.sha256(dumps(self.documents)).hexdigest()[:20]


def read_whole(connection: Connection, ledger: Connection, *, revision: int) -> Whole:
    """The documents of everything."""
    governance = read.load_governance(connection, now_ms=2**62, ledger=ledger)  # no runs: none lives that long
    return Whole({kind: dict(made) for kind, made in _all(governance, connection).items()}, revision)


def _all(governance: Governance, connection: Connection) -> dict[str, Iterable[tuple[str, Json]]]:
    caps, of_keys = governance.caps, _models_of_keys(governance)
    versions = all_versions(connection)
    return {
        "provider": ((record.name, documents.provider_document(record)) for record in governance.providers),
        "customer": _by_name(documents.group_document(record, Scope.CUSTOMER, caps) for record in governance.customers),
        "team": _by_name(documents.group_document(record, Scope.TEAM, caps) for record in governance.teams),
        "virtual_key": _by_name(
            documents.virtual_key_document(record, caps, of_keys.get(record.id, ())) for record in governance.virtual_keys
        ),
        "provider_limits": (
            (name, {"name": name, **documents.limits_document(caps, Owner(Scope.PROVIDER, name, name))})
            for name in sorted(scope_id for scope, scope_id in caps if scope is Scope.PROVIDER)
        ),
        "model_config": _by_name(documents.model_config_document(record, caps) for record in _on_their_own(governance)),
        "routing_rule": ((record.id, documents.routing_rule_document(record)) for record in governance.routing_rules),
        "pricing_override": _by_name(documents.pricing_override_document(record) for record in governance.pricing_overrides),
        "prompt": _by_name(
            documents.prompt_document(record, versions.get(record.id, ())) for record in prompt_page(connection, "", None, 0)[0]
        ),
    }


def _models_of_keys(governance: Governance) -> Mapping[str, list[ModelConfigRecord]]:
    found: defaultdict[str, list[ModelConfigRecord]] = defaultdict(list)
    for record in governance.model_configs:
        if record.scope_id is not None:
            found[record.scope_id].append(record)
    return found


def _on_their_own(governance: Governance) -> list[ModelConfigRecord]:
    """Model configs that stand in no virtual key's document."""
    of_keys = _models_of_keys(governance)
    inside = {
        record.id
        for key in governance.virtual_keys
        if key.id in of_keys
        for shown in shown_in(key.provider_configs, of_keys[key.id])
        for record in shown
    }
    return [record for record in governance.model_configs if record.id not in inside]


def _by_name(made: Iterable[Json]) -> Iterable[tuple[str, Json]]:
    """By name, then id. Routing rules are not sorted so: they stand in the order in which they are asked."""
    return ((one["id"], one) for one in sorted(made, key=lambda one: (str(one.get("name") or one.get("model_name")), one["id"])))
