"""File-only mode on both engines: what the file says is in force, what was spent stays, two nodes agree, nothing can be edited."""

import copy
import hashlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from store.clock import Ids
from store.config_store import change, read
from store.config_store.bootstrap import open_config_store
from store.config_store.build import load_snapshot
from store.config_store.change_runs import run_cost_cap_id
from store.config_store.file_ledger import FileReport
from store.config_store.file_only import apply_file, open_file_only
from store.config_store.quota import read_quota
from store.config_store.specs import BudgetPatch, BudgetRowSpec, TeamSpec, VirtualKeyPatch, VirtualKeySpec
from store.config_store.store import ConfigStore
from store.database import Database, governance_revision
from store.errors import Conflict, SettingsError, UserError
from store.ledger.batch import Batch
from store.ledger.books import Books
from store.ledger.caps import cap_states, load_caps
from store.ledger.types import CapState, Granted, HoldRequest, Scope, Settlement
from store.ledger.verify import verify
from store.settings import settings_from
from tests.store.config_store.conftest import START_MS, StillClock

OpenDatabase = Callable[..., Database]
VALUE = "sk-bf-file-only-0001"
OTHER = "sk-bf-file-only-0002"
HOUR = 3_600_000


def document(**changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "config_store": {"enabled": False},
        "providers": {"openai": {"keys": [{"name": "main", "value": "sk-literal-provider-secret"}]}},
        "governance": {
            "customers": [{"name": "acme", "budgets": [{"max_limit": 100, "reset_duration": "1M"}]}],
            "teams": [{"name": "search", "customer_id": "acme"}],
            "virtual_keys": [
                {
                    "name": "indexer",
                    "value": VALUE,
                    "team_id": "search",
                    "budgets": [{"max_limit": 1, "reset_duration": "1h"}],
                    "rate_limit": {"request_max_limit": 10, "request_reset_duration": "1m"},
                    "provider_configs": [
                        {"provider": "openai", "budgets": [{"max_limit": "0.5", "reset_duration": "1d"}]},
                        {"provider": "openai", "allowed_models": ["gpt-4o"]},
                    ],
                },
                {"name": "crawler", "value": OTHER, "budgets": [{"name": "crawler-prepaid", "max_limit": 3}]},
            ],
            "providers": [{"name": "openai", "budgets": [{"max_limit": 50, "reset_duration": "1d"}]}],
        },
    }
    made["governance"].update(changes)
    return made


def key_of(made: dict[str, Any], index: int = 0) -> dict[str, Any]:
    key: dict[str, Any] = made["governance"]["virtual_keys"][index]
    return key


class Node:
    """One machine with a file, on a ledger that may be shared."""

    def __init__(self, open_it: OpenDatabase, clock: StillClock) -> None:
        self.database = open_it(clock)
        self.clock = clock

    def apply(self, made: dict[str, Any], environ: dict[str, str] | None = None) -> tuple[ConfigStore, FileReport]:
        settings = settings_from(copy.deepcopy(made), environ or {}, source="config.json")
        return apply_file(self.database, settings, clock=self.clock, ids=Ids(self.clock))

    def open(self, made: dict[str, Any]) -> ConfigStore:
        settings = settings_from(copy.deepcopy(made), {}, source="config.json")
        return open_file_only(self.database, settings, clock=self.clock, ids=Ids(self.clock))

    def spend(self, caps: Sequence[str], nanos: int, call_id: str) -> None:
        """One call, held and posted on these caps."""
        with self.database.write() as connection:
            books = Books(connection, self.clock.now_ms())
            batch = Batch(connection, books, epoch="e", revision=governance_revision(connection))
            revision = governance_revision(connection)
            request = HoldRequest(call_id, tuple(caps), nanos, nanos, revision=revision)
            batch.prepare([request], [])
            answer = batch.hold(request)
            assert isinstance(answer, Granted), answer
            batch.settle(Settlement(call_id, nanos, 10, sent=True, note="complete"))
            batch.flush()

    def states(self) -> dict[str, CapState]:
        with self.database.read() as connection:
            return {state.cap.name: state for state in cap_states(connection, self.clock.now_ms())}

    def used(self, name: str) -> int:
        return self.states()[name].used


@pytest.fixture
def node(open_any: OpenDatabase, clock: StillClock) -> Node:
    return Node(open_any, clock)


def test_the_file_is_in_force_and_nothing_secret_is_in_the_ledger(node: Node) -> None:
    store, report = node.apply(document())
    # customer, key (money, requests), provider config, prepaid, provider: counted by hand in the document
    assert (report.added, report.changed, report.removed) == (6, 0, 0)
    snapshot = load_snapshot(store, {})
    key = snapshot.by_hash[hashlib.sha256(VALUE.encode()).hexdigest()]
    assert (key.name, key.team_name, key.customer_name) == ("indexer", "search", "acme")
    assert [cap.limit for cap in key.caps] == [10, 1_000_000_000]
    assert [[cap.limit for cap in config.caps] for config in key.provider_configs] == [[500_000_000], []]
    assert snapshot.providers["openai"].keys[0].value == "sk-literal-provider-secret"
    with node.database.read() as connection:
        tables = ("virtual_keys", "provider_configs", "provider_keys", "providers", "config_meta", "caps", "teams", "customers")
        text = repr([connection.execute(f"SELECT * FROM {table}") for table in tables])
    hashed = hashlib.sha256(VALUE.encode()).hexdigest()
    assert "sk-literal" not in text and VALUE not in text and hashed not in text


def test_spending_survives_every_restart_and_changed_limits(node: Node) -> None:
    store, _ = node.apply(document())
    key = load_snapshot(store, {}).by_hash[hashlib.sha256(VALUE.encode()).hexdigest()]
    before = {name: state.cap for name, state in node.states().items()}
    node.spend([cap.id for cap in (*key.caps, *key.customer_caps)], 250_000_000, "c1")
    store.database.close()
    node.clock.at_ms += 10_000
    store, report = node.apply(document())
    assert report == FileReport()
    assert {name: state.cap for name, state in node.states().items()} == before
    assert (node.used("indexer per 1h"), node.used("indexer requests per 1m"), node.used("acme per 1M")) == (
        250_000_000, 1, 250_000_000,
    )  # fmt: skip
    made = document()
    key_of(made)["budgets"][0]["max_limit"] = 2
    _, report = node.apply(made)
    assert report == FileReport(changed=1)
    state = node.states()["indexer per 1h"]
    assert (state.limit, state.used, state.cap.id) == (2_000_000_000, 250_000_000, before["indexer per 1h"].id)
    assert verify(node.database, node.clock).clean


def test_a_removed_cap_is_a_tombstone_and_comes_back_with_what_it_had_spent(node: Node) -> None:
    node.apply(document())
    cap = node.states()["indexer per 1h"].cap
    node.spend([cap.id], 250_000_000, "c1")
    made = document()
    key_of(made)["budgets"] = []
    store, report = node.apply(made)
    assert report == FileReport(removed=1)
    assert "indexer per 1h" not in node.states()
    assert [c.unit.value for c in load_snapshot(store, {}).virtual_keys[cap.scope_id].caps] == ["requests"]
    with node.database.read() as connection:
        assert [c.deleted for c in load_caps(connection, deleted=True) if c.id == cap.id] == [True]
    node.clock.at_ms += 60_000
    _, report = node.apply(document())
    assert report == FileReport(added=1)
    state = node.states()["indexer per 1h"]
    assert (state.cap.id, state.cap.created_ms, state.used) == (cap.id, cap.created_ms, 250_000_000)
    assert verify(node.database, node.clock).clean


def test_a_cap_keeps_its_sums_under_a_new_window_found_by_name(node: Node) -> None:
    made = document()
    key_of(made)["budgets"][0]["name"] = "daily bread"
    node.apply(made)
    cap = node.states()["daily bread"].cap
    node.spend([cap.id], 100_000_000, "c1")
    key_of(made)["budgets"][0]["reset_duration"] = "1d"
    _, report = node.apply(made)
    assert report == FileReport(changed=1)
    state = node.states()["daily bread"]
    assert (state.cap.id, state.cap.window, state.used) == (cap.id, "1d", 100_000_000)


def test_a_renamed_key_with_an_id_stays_the_same_and_its_caps_follow(node: Node) -> None:
    made = document()
    key_of(made)["id"] = "vk-1"
    store, _ = node.apply(made)
    node.spend([cap.id for cap in load_snapshot(store, {}).virtual_keys["vk-1"].caps], 100_000_000, "c1")
    key_of(made)["name"] = "indexer-two"
    store, report = node.apply(made)
    key = load_snapshot(store, {}).virtual_keys["vk-1"]
    assert key.name == "indexer-two"
    assert report.added == report.removed == 0
    usd = next(cap for cap in key.caps if cap.unit.value == "usd")
    assert usd.scope_name == "indexer-two"
    quota = orjson.loads(orjson.dumps(read_quota(store, key)))
    assert quota["budgets"][0]["current_usage"] == 0.1


def test_two_nodes_with_the_same_file_agree_on_every_id(open_any: OpenDatabase, clock: StillClock) -> None:
    one, two = Node(open_any, clock), Node(open_any, clock)
    first, _ = one.apply(document())
    clock.at_ms += 5_000
    second, report = two.apply(document())
    assert report == FileReport()
    left, right = load_snapshot(first, {}), load_snapshot(second, {})
    assert left.virtual_keys == right.virtual_keys
    assert left.by_hash == right.by_hash
    assert [key.id for key in left.providers["openai"].keys] == [key.id for key in right.providers["openai"].keys]
    cap = left.virtual_keys[next(iter(left.virtual_keys))].caps[-1]
    one.spend([cap.id], 400_000_000, "c1")
    two.spend([cap.id], 300_000_000, "c2")
    assert one.used(cap.name) == two.used(cap.name) == 700_000_000


def test_nodes_that_start_at_the_same_moment_make_one_set_of_caps(open_any: OpenDatabase, clock: StillClock) -> None:
    nodes = [Node(open_any, clock) for _ in range(3)]
    reports: list[FileReport] = []
    threads = [threading.Thread(target=lambda n=n: reports.append(n.apply(document())[1])) for n in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(report.added for report in reports) == [0, 0, 6]
    assert all(report.changed == report.removed == 0 for report in reports)


def test_a_node_that_missed_a_change_closes_the_doors_that_are_gone(open_any: OpenDatabase, clock: StillClock) -> None:
    """Its file still has a key whose caps another node has taken away: without them the key would spend without end."""
    stale, fresh = Node(open_any, clock), Node(open_any, clock)
    old, _ = stale.apply(document())
    made = document()
    del made["governance"]["virtual_keys"][1]
    key_of(made)["provider_configs"] = key_of(made)["provider_configs"][:1]
    fresh.apply(made)
    snapshot = load_snapshot(old, {})
    assert [key.name for key in snapshot.virtual_keys.values()] == ["indexer"]
    assert hashlib.sha256(OTHER.encode()).hexdigest() not in snapshot.by_hash
    assert [len(key.provider_configs) for key in snapshot.virtual_keys.values()] == [1]


def test_nothing_can_be_edited_and_the_answer_says_how(node: Node) -> None:
    store, _ = node.apply(document())
    key_id = next(iter(load_snapshot(store, {}).virtual_keys))
    cap = node.states()["indexer per 1h"].cap
    attempts: list[Callable[[], object]] = [
        lambda: change.create_virtual_key(store, VirtualKeySpec(name="new")),
        lambda: change.update_virtual_key(store, key_id, VirtualKeyPatch(name="new")),
        lambda: change.rotate_virtual_key(store, key_id),
        lambda: change.delete_virtual_key(store, key_id),
        lambda: change.create_team(store, TeamSpec(name="new")),
        lambda: change.create_budget(
            store, BudgetRowSpec(max_limit=Decimal(1), reset_duration="7d", scope="virtual_key", scope_id=key_id)
        ),
        lambda: change.update_budget(store, cap.id, BudgetPatch(max_limit=Decimal(5))),
        lambda: change.delete_budget(store, cap.id),
        lambda: change.delete_provider(store, "openai"),
        lambda: change.top_up_budget(store, node.states()["crawler-prepaid"].cap.id, 1_000_000_000, ""),
    ]
    before = node.states()
    for attempt in attempts:
        with pytest.raises(Conflict, match=r"config_store\.enabled is false\): change the file, then restart the gateway"):
            attempt()
    assert node.states() == before


def test_what_was_spent_can_be_reset_and_topped_up(node: Node) -> None:
    store, _ = node.apply(document())
    cap = node.states()["indexer per 1h"].cap
    node.spend([cap.id], 900_000_000, "c1")
    change.top_up_budget(store, cap.id, 500_000_000, "one more")
    assert node.states()["indexer per 1h"].remaining == 600_000_000
    change.reset_budget(store, cap.id, "a new day")
    assert node.used("indexer per 1h") == 0
    node.apply(document())  # a restart leaves both as they are
    assert (node.used("indexer per 1h"), node.states()["indexer per 1h"].limit) == (0, 1_500_000_000)
    assert verify(node.database, node.clock).clean


def test_runs_live_in_the_ledger(node: Node) -> None:
    store, _ = node.apply(document())
    made = change.create_run(store, "indexer", 2_000_000_000, 3_600)
    key = load_snapshot(store, {}).by_hash[hashlib.sha256(made.value.encode()).hexdigest()]
    assert (key.name, key.run_id) == ("indexer", made.id)
    assert {cap.id for cap in key.run_caps} >= {run_cost_cap_id(made.id)}
    again = node.open(document())  # another process, or after a restart
    assert hashlib.sha256(made.value.encode()).hexdigest() in load_snapshot(again, {}).by_hash
    _, report = node.apply(document())
    assert report == FileReport()  # a run's caps are not the file's to remove
    change.end_run(store, made.id)
    assert hashlib.sha256(made.value.encode()).hexdigest() not in load_snapshot(again, {}).by_hash
    without = document()
    del without["governance"]["virtual_keys"][0]
    node.apply(without)
    with node.database.read() as connection:
        assert read.run(connection, made.id) is None
        assert load_caps(connection, scope=Scope.RUN) == []


def test_a_wrong_file_changes_nothing(node: Node) -> None:
    node.apply(document())
    before = node.states()
    made = document()
    key_of(made)["budgets"][0]["max_limit"] = 9
    key_of(made, 1)["provider_configs"] = [{"provider": "opnai"}]
    with pytest.raises(UserError, match=r"governance\.virtual_keys\[1\]\.provider_configs\[0\]\.provider: .*did you mean 'openai'"):
        node.apply(made)
    assert node.states() == before
    made = document()
    key_of(made)["value"] = "env.NOT_SET_ANYWHERE"
    with pytest.raises(SettingsError, match="NOT_SET_ANYWHERE is not set"):
        node.apply(made)
    assert node.states() == before


def test_a_key_without_a_value_is_refused_in_a_sentence() -> None:
    made = document()
    del key_of(made)["value"]
    with pytest.raises(
        SettingsError, match=r"governance\.virtual_keys\[0\]\.value: is required while config_store\.enabled is false"
    ):
        settings_from(made, {}, source="config.json")


def test_values_from_the_environment(node: Node) -> None:
    made = document()
    key_of(made)["value"] = "env.KEY"
    store, _ = node.apply(made, {"KEY": VALUE})
    assert hashlib.sha256(VALUE.encode()).hexdigest() in load_snapshot(store, {}).by_hash


def test_an_encryption_key_hides_values_in_the_picture(node: Node) -> None:
    store, _ = node.apply({**document(), "encryption_key": "a passphrase of some length"})
    with store.reading() as (governance, _):
        assert {key.value for key in read.virtual_keys(governance)} == {None}
    assert load_snapshot(store, {}).providers["openai"].keys[0].value == "sk-literal-provider-secret"


def test_a_configuration_store_is_not_taken_for_a_ledger_nor_the_other_way_round(node: Node) -> None:
    ids = Ids(node.clock)
    plain = settings_from({}, {}, source="config.json")
    store = open_config_store(node.database, plain, clock=node.clock, ids=ids)
    change.create_virtual_key(store, VirtualKeySpec(name="somebody"))
    for attempt in (node.apply, node.open):
        with pytest.raises(UserError, match="holds a configuration of its own.*ledger_store"):
            attempt(document())
    with store.changing() as connection:
        connection.execute("DELETE FROM provider_configs")
        connection.execute("DELETE FROM virtual_keys")
    node.apply(document())
    with pytest.raises(UserError, match="is the ledger of a gateway with config_store.enabled false"):
        open_config_store(node.database, plain, clock=node.clock, ids=ids)


def test_an_id_of_somebody_elses_cap_is_refused_living_or_not(node: Node) -> None:
    made = document()
    key_of(made)["budgets"][0]["id"] = "b-1"
    node.apply(made)
    del key_of(made)["budgets"][0]["id"]
    key_of(made, 1)["budgets"][0]["id"] = "b-1"
    with pytest.raises(Conflict, match="the budget id 'b-1' is another owner's"):
        node.apply(made)
    gone = document()
    key_of(gone)["budgets"] = []
    node.apply(gone)
    key_of(gone, 1)["budgets"].append({"id": "b-1", "max_limit": 1, "reset_duration": "1d"})
    before = node.states()
    with pytest.raises(Conflict, match="the id 'b-1' belonged to a cap of 'indexer' before"):
        node.apply(gone)
    assert node.states() == before


def test_wide_caps_of_models_and_providers_come_and_go(node: Node) -> None:
    made = document(model_configs=[{"model_name": "gpt-4o", "budgets": [{"max_limit": 7, "reset_duration": "1d"}]}])
    store, _ = node.apply(made)
    assert [cap.limit for cap in load_snapshot(store, {}).model_caps.by_name["gpt-4o"][0].caps] == [7_000_000_000]
    del made["governance"]["model_configs"], made["governance"]["providers"]
    store, report = node.apply(made)
    assert report == FileReport(removed=2)
    assert load_snapshot(store, {}).model_caps.limits == ()


def test_caps_on_models_come_from_the_file_and_keep_what_was_spent(node: Node, clock: StillClock) -> None:
    """In a key, beside it, and for everybody; without ids of their own they are the same ones after every start."""
    day = {"reset_duration": "1d"}
    made = document(
        model_configs=[
            {"model_name": "gpt-*", "provider": "openai", "budgets": [{"max_limit": 7, **day}]},
            {"model_name": "o3", "scope": "virtual_key", "scope_id": "indexer", "budgets": [{"max_limit": 2, **day}]},
        ]
    )
    inside = [{"model_name": "gpt-4o", "budgets": [{"max_limit": 1, **day}], "rate_limit": {"concurrent_max_limit": 3}}]
    key_of(made)["provider_configs"][0]["model_budgets"] = inside
    store, report = node.apply(made)
    assert report.added == 6 + 4
    names = ["indexer on gpt-4o at openai per 1d", "indexer on o3 per 1d", "gpt-* at openai per 1d"]
    node.spend([node.states()[name].cap.id for name in names], 300_000_000, "call-1")

    store, report = node.apply(made)
    assert (report.added, report.changed, report.removed) == (0, 0, 0)
    assert [node.used(name) for name in names] == [300_000_000] * 3
    snapshot = load_snapshot(node.open(made), {})
    (key,) = (key for key in snapshot.virtual_keys.values() if key.name == "indexer")
    assert {limit.model_name: [cap.limit for cap in limit.caps] for limit in key.model_caps.limits} == {
        "gpt-4o": [1_000_000_000, 3],
        "o3": [2_000_000_000],
    }
    assert load_snapshot(store, {}).model_caps == snapshot.model_caps
    quota = orjson.loads(orjson.dumps(read_quota(store, key)))
    assert {config["model_name"]: (config["provider"], [budget["current_usage"] for budget in config["budgets"]])
            for config in quota["model_configs"]} == {"gpt-4o": ("openai", [0.3]), "o3": (None, [0.3])}  # fmt: skip

    # The same model budget, written as a row beside the key: nothing changes.
    del key_of(made)["provider_configs"][0]["model_budgets"]
    row = {**inside[0], "scope": "virtual_key", "scope_id": "indexer", "provider": "openai"}
    made["governance"]["model_configs"].append(row)
    _, report = node.apply(made)
    assert str(report) == ""
    # Another limit, and one entry less.
    made["governance"]["model_configs"][1]["budgets"][0]["max_limit"] = 9
    del made["governance"]["model_configs"][0]
    _, report = node.apply(made)
    assert (report.added, report.changed, report.removed) == (0, 1, 1)
    assert node.used("indexer on o3 per 1d") == 300_000_000
    # With the key its model caps go.
    del made["governance"]["virtual_keys"][0], made["governance"]["model_configs"]
    store, _ = node.apply(made)
    assert not any("indexer" in name for name in node.states())
    assert verify(node.database, node.clock).clean


def test_no_configuration_database_is_made(tmp_path: Path, clock: StillClock) -> None:
    from addons.opening import prepare_store

    settings = settings_from(document(), {}, source="config.json")
    store, report = prepare_store(tmp_path, settings, clock, Ids(clock))
    store.close()
    assert report.applied == "caps: 6 added"
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.endswith(("-wal", "-shm", ".lock"))) == ["ledger.db"]
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        assert connection.execute("SELECT count(*) FROM providers").fetchone() == (0,)
    assert START_MS == clock.now_ms()
