"""The API against its own description: generated requests on a real gateway, and a client generated from the served document."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.config import budget, config_for, virtual_key
from tests.support.gateway import Gateway

EXAMPLES = 4
"""Requests of each kind for each operation."""
LONGEST_ADDRESS = 60_000
LOCKS_OUT = {"update_config"}
"""Would change who may sign in while others are at work."""
NEVER_ENDS = {"list_events"}
"""A stream of events."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    teams = {"teams": [{"id": "team-1", "name": "Blue"}], "customers": [{"id": "customer-1", "name": "Acme"}]}
    keys = [virtual_key(budgets=[budget("0.5", id="budget-1")], team_id="team-1")]
    config = config_for("http://127.0.0.1:9", virtual_keys=keys, governance=teams)
    with Gateway(tmp_path_factory.mktemp("contract"), config) as running:
        yield running


@pytest.fixture(scope="module")
def document(gateway: Gateway) -> dict[str, Any]:
    with gateway.console() as console:
        made: dict[str, Any] = console.get("/api/openapi.json").raise_for_status().json()
    return made


def closed(document: dict[str, Any]) -> dict[str, Any]:
    """The same, with answers that may hold nothing but what is described."""
    made: dict[str, Any] = json.loads(json.dumps(document))
    for shape in made["components"]["schemas"].values():
        if "properties" in shape:
            shape.setdefault("additionalProperties", False)
    return made


def known_parts(gateway: Gateway) -> dict[str, str]:
    """Path parts that lead to something, by name."""
    with gateway.console() as console:
        run = console.post("/api/governance/runs", json={"virtual_key": "workshop-vk-1"}).raise_for_status().json()["run"]
    return {
        "key_id": "workshop-vk-1",
        "budget_id": "budget-1",
        "group_id": "Blue",
        "run_id": run["id"],
        "name": "openai",
        "provider": "openai",
    }


def test_nothing_generated_breaks_a_promise(gateway: Gateway, document: dict[str, Any]) -> None:
    """No 5xx, answers and statuses as described, nothing accepted that the description forbids."""
    schema = schemathesis.openapi.from_dict(closed(document))
    schema.config.base_url = gateway.console_url
    known = known_parts(gateway)
    session = requests.Session()
    session.trust_env = False
    session.headers["Authorization"] = f"Bearer {gateway.admin_token}"
    found: list[Any] = list(schema.get_all_operations())
    operations = [one.ok() for one in found]
    operations.sort(key=lambda one: one.method == "delete")
    faults: list[str] = []
    for one in operations:
        if one.definition.raw["operationId"] in LOCKS_OUT | NEVER_ENDS:
            continue
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            fault = _break(one, mode, session, known)
            if fault:
                faults.append(f"{one.label} ({mode.value}): {fault}")
    assert not faults, "\n\n".join(faults)


def _break(one: Any, mode: Any, session: requests.Session, known: dict[str, str]) -> str:
    strategy = one.as_strategy(generation_mode=mode)

    @seed(20_261_123)
    @settings(
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy, real=st.booleans())
    def ask(case: Any, real: bool) -> None:
        if real and case.path_parameters:
            case.path_parameters = {name: known.get(name, value) for name, value in case.path_parameters.items()}
        try:
            case.call_and_validate(session=session, checks=CHECKS)
        except requests.ConnectionError as error:
            if error.request is None or len(str(error.request.url)) < LONGEST_ADDRESS:
                raise  # longer ones are cut off by the server before anything is read

    try:
        ask()
    except Unsatisfiable:
        return ""  # nothing can be wrong with a request of nothing
    except BaseExceptionGroup as found:
        return "; ".join(str(error) for error in found.exceptions)[:1500]
    return ""


def generated_client(document: dict[str, Any], folder: Path) -> None:
    """Writes the package `tollgate_generated` below a folder, as anybody would make it."""
    described = folder / "openapi.json"
    described.write_text(json.dumps(document), encoding="utf-8")
    program = Path(sys.executable).parent / "openapi-python-client"
    made = subprocess.run(
        [program, "generate", "--path", described, "--output-path", folder / "tollgate_generated", "--meta", "none"],
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    assert "Warning" not in made.stdout, made.stdout


def test_a_client_generated_from_the_document_does_the_whole_work(
    gateway: Gateway, document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Customer → team → key with budgets → read → update by its tag → rotate → raise → delete, in the client's own types."""
    generated_client(document, tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    package = importlib.import_module("tollgate_generated")
    models = importlib.import_module("tollgate_generated.models")
    client = package.AuthenticatedClient(base_url=gateway.console_url, token=gateway.admin_token, httpx_args={"trust_env": False})

    def call(where: str, *parts: str, **arguments: Any) -> Any:
        answer = importlib.import_module(f"tollgate_generated.api.{where}").sync_detailed(*parts, client=client, **arguments)
        assert answer.parsed is not None, (where, answer.status_code)
        return answer

    customer = call("customers.create_customer", body=models.CustomerSpec(name="Generated")).parsed.customer
    team_spec = models.TeamSpec(
        name="Generated team", customer_id=customer.id, budgets=[models.BudgetSpec(max_limit=20, reset_duration="1d")]
    )
    team = call("teams.create_team", body=team_spec).parsed.team
    assert team.customer.name == "Generated" and usd(team.budgets[0].max_limit) == 20
    spec = models.VirtualKeySpec(
        name="generated-key",
        team_id=team.id,
        budgets=[
            models.BudgetSpec(max_limit=0.000000001, reset_duration="1h"),
            models.BudgetSpec(max_limit=12345.678901234, reset_duration="1M"),
        ],
        provider_configs=[models.ProviderConfigSpec(provider="openai", allowed_models=["gpt-4o-mini"])],
    )
    made = call("virtual_keys.create_virtual_key", body=spec).parsed.virtual_key
    assert made.value.startswith("sk-bf-") and made.expires_at is None
    assert [usd(one.max_limit) for one in made.budgets] == [Decimal("0.000000001"), Decimal("12345.678901234")]

    read = call("virtual_keys.get_virtual_key", made.id)
    assert read.parsed.virtual_key.provider_configs[0].allowed_models == ["gpt-4o-mini"]
    tag = read.headers["ETag"]
    changed = call(
        "virtual_keys.update_virtual_key", made.id, body=models.VirtualKeyPatch(description="by a machine"), if_match=tag
    )
    assert changed.parsed.virtual_key.description == "by a machine" and changed.headers["ETag"] != tag
    stale = call("virtual_keys.update_virtual_key", made.id, body=models.VirtualKeyPatch(description="too late"), if_match=tag)
    assert stale.status_code == 412 and isinstance(stale.parsed, models.ErrorAnswer)

    rotated = call("virtual_keys.rotate_virtual_key", made.id, body=models.Rotate()).parsed.virtual_key
    assert rotated.value != made.value and rotated.id == made.id
    small = made.budgets[0].id
    raised = call("budgets.update_budget_override", small, body=models.OverrideBody(amount=1.5, duration="2h")).parsed.budget
    assert usd(raised.effective_max_limit) == Decimal("1.500000001") and usd(raised.override.amount) == Decimal("1.5")
    page = call("virtual_keys.list_virtual_keys", search="generated", limit=10).parsed
    assert (page.count, page.total_count, page.limit, page.virtual_keys[0].description) == (1, 1, 10, "by a machine")

    things = {"virtual_keys.delete_virtual_key": made, "teams.delete_team": team, "customers.delete_customer": customer}
    for where, thing in things.items():
        assert call(where, thing.id).parsed.message.endswith("deleted successfully")
    gone = call("virtual_keys.get_virtual_key", made.id)
    assert gone.status_code == 404 and "there is no virtual key" in gone.parsed.error.message


def usd(amount: float) -> Decimal:
    """The decimal that a generated client's float was written as."""
    return Decimal(repr(amount))
