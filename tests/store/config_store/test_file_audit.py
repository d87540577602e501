"""One row tells what a whole file did: at the first start, at `--reseed`, and at each start or SIGHUP of file-only mode."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from store.clock import Ids
from store.config_store import file_audit
from store.config_store.audit import AuditEntry, AuditQuery, audit_page
from store.config_store.bootstrap import BootstrapReport
from store.config_store.file_only import apply_file
from store.config_store.store import ConfigStore
from store.database import Database
from store.errors import UserError
from store.settings import settings_from
from tests.store.config_store.conftest import StillClock

Seeded = Callable[..., tuple[ConfigStore, BootstrapReport]]
SECRET = "sk-literal-provider-secret"
VALUE = "sk-bf-file-audit-0001"


def document(*teams: str, limit: float = 1, **sections: Any) -> dict[str, Any]:
    return {
        "providers": {"openai": {"keys": [{"name": "main", "value": SECRET}]}},
        "governance": {
            "teams": [{"name": name, "budgets": [{"max_limit": limit, "reset_duration": "1d"}]} for name in teams],
            "virtual_keys": [{"name": "robot", "value": VALUE}],
        },
        **sections,
    }


def rows(database: Database, **conditions: Any) -> list[AuditEntry]:
    with database.read() as connection:
        return list(audit_page(connection, AuditQuery(**conditions), 100, 0).entries)[::-1]


def told(entry: AuditEntry) -> Any:
    return json.loads(entry.details or "null")


def test_seeding_and_reseeding_leave_a_row_each_and_an_ignored_file_none(seeded: Seeded, database: Database) -> None:
    seeded(document("blue", "red"))
    seeded(document("blue", "red", "green"))
    seeded(document("blue", "green", limit=2), reseed=True)
    seed, reseed = rows(database, kind="configuration")
    assert (seed.action, seed.actor, seed.method, seed.entity_id) == ("seed", "gateway", "start", "config.json")
    assert told(seed) == {"added": {"provider": ["openai"], "team": ["blue", "red"], "virtual_key": ["robot"]}}
    assert seed.before is None and [team["name"] for team in json.loads(seed.after or "")["team"]] == ["blue", "red"]
    assert reseed.action == "reseed" and told(reseed) == {"added": {"team": ["green"]}, "changed": {"team": ["blue"]}}
    assert json.loads(reseed.before or "")["team"][0]["budgets"][0]["max_limit"] == 1
    assert json.loads(reseed.after or "")["team"][1]["budgets"][0]["max_limit"] == 2
    assert SECRET not in str(rows(database)) and VALUE not in str(rows(database))


def test_the_first_key_is_told_of(seeded: Seeded, database: Database) -> None:
    seeded({})
    (row,) = rows(database)
    assert (row.action, row.kind, row.entity_name, row.actor) == ("create", "virtual_key", "default", "gateway")
    seeded(document("blue"))
    assert told(rows(database)[-1])["removed"] == {"virtual_key": ["default"]}


def test_a_file_that_is_refused_leaves_no_row(seeded: Seeded, database: Database) -> None:
    seeded(document("blue"))
    broken = document("blue")
    broken["governance"]["virtual_keys"].append({"name": "other", "value": VALUE})
    with pytest.raises(UserError):
        seeded(broken, reseed=True)
    assert len(rows(database)) == 1


def test_file_only_mode_tells_what_each_file_changed(database: Database, clock: StillClock) -> None:
    def apply(made: dict[str, Any]) -> None:
        settings = settings_from({**made, "config_store": {"enabled": False}}, {}, source="config.json")
        store, _ = apply_file(database, settings, clock=clock, ids=Ids(clock))
        store.database.close()

    apply(document("blue", "red"))
    apply(document("blue", "red"))
    assert len(rows(database)) == 1, "a start with the same file changes nothing"
    other = document("blue", "green", limit=2)
    other["providers"]["openai"]["hosts"] = ["openai.example.com"]
    apply(other)
    first, second = rows(database)
    assert (first.action, second.action) == ("apply", "apply")
    assert told(first)["added"] == {"provider": ["openai"], "team": ["blue", "red"], "virtual_key": ["robot"]}
    assert told(second) == {
        "added": {"team": ["green"]},
        "changed": {"provider": ["openai"], "team": ["blue"]},
        "removed": {"team": ["red"]},
    }
    assert SECRET not in str(rows(database)) and VALUE not in str(rows(database))


def test_a_large_file_is_told_of_in_bounded_space(seeded: Seeded, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_audit, "NAMES_KEPT", 2)
    monkeypatch.setattr(file_audit, "DOCUMENTS_KEPT", 3)
    seeded(document(*(f"t{number}" for number in range(5))))
    (row,) = rows(database)
    assert told(row)["added"]["team"] == ["t0", "t1", "and 3 more"] and row.after is None


def test_the_first_encryption_key_is_told_of_without_being_told(seeded: Seeded, database: Database) -> None:
    seeded(document("blue"))
    key = "a-long-encryption-key-0123456789"
    seeded(document("blue", encryption_key=key))
    seeded(document("blue", encryption_key=key))
    _, row = rows(database)
    assert (row.action, row.kind, row.actor, row.entity_name) == ("encrypt", "encryption", "gateway", "encryption_key")
    assert key not in str(row)
