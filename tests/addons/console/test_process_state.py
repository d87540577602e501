"""The supervisor's reports as health words and as Prometheus numbers."""

import json

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from addons.console.process_state import FamilyState


def report(*ready: bool, restarts: int = 0, **more: int) -> bytes:
    workers = [
        {"name": f"worker {number}", "role": "worker", "pid": 100 + number if up else None, "ready": up, "restarts": restarts}
        for number, up in enumerate(ready, 1)
    ]
    console = {"name": "console", "role": "console", "pid": 99, "ready": True, "restarts": 0}
    return json.dumps({"processes": [console, *workers], "leaving": 0, "reloads": 0, "reloads_failed": 0, **more}).encode()


def state(text: bytes) -> FamilyState:
    made = FamilyState()
    made.take(text)
    return made


@pytest.mark.parametrize(
    "text,can_serve,words",
    [
        (report(True), True, "1 of 1 ready"),
        (report(True, False), True, "1 of 2 ready"),
        (report(False, False), False, "0 of 2 ready"),
        (report(True, True, restarts=1), True, "2 of 2 ready, 2 restarts"),
        (report(True, restarts=1, leaving=3), True, "1 of 1 ready, 1 restart, 3 leaving"),
    ],
)
def test_health_in_words(text: bytes, can_serve: bool, words: str) -> None:
    made = state(text)
    assert made.can_serve is can_serve and made.components() == {"workers": words}


def test_before_the_first_report_nothing_is_said_and_nothing_is_wrong() -> None:
    made = FamilyState()
    assert made.can_serve and made.components() == {} and list(made.metrics()) == []


@pytest.mark.parametrize("text", [b"", b"oops", b"[]", b"{}", b'{"processes": [{}]}', report(True).replace(b"leaving", b"left")])
def test_what_is_no_report_changes_nothing(text: bytes, caplog: pytest.LogCaptureFixture) -> None:
    made = state(report(True))
    made.take(text)
    assert made.components() == {"workers": "1 of 1 ready"} and "could not be understood" in caplog.text


def test_numbers() -> None:
    class Scrape:
        def collect(self):  # type: ignore[no-untyped-def]
            return state(report(True, False, restarts=2, leaving=1, reloads=3, reloads_failed=1)).metrics()

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Scrape())  # type: ignore[arg-type]
    lines = generate_latest(registry).decode().splitlines()
    for line in (
        'tollgate_process_ready{process="worker 1"} 1.0',
        'tollgate_process_ready{process="worker 2"} 0.0',
        'tollgate_process_restarts_total{process="worker 2"} 2.0',
        "tollgate_processes_leaving 1.0",
        'tollgate_reloads_total{result="done"} 3.0',
        'tollgate_reloads_total{result="failed"} 1.0',
    ):
        assert line in lines
