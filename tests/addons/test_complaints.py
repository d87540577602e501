"""A fault that meets every call is told at once and then counted."""

import logging

import pytest

from addons.complaints import Complaints


def test_a_flood_becomes_a_line_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    seconds = 100.0
    complaints = Complaints(logging.getLogger("test"), lambda: seconds, every_seconds=10)
    for moment in (100.0, 100.1, 105.0, 109.9, 110.0, 110.1, 300.0):
        seconds = moment
        complaints.tell("the ledger cannot be written", "the disk is full")
    assert [record.getMessage() for record in caplog.records] == [
        "the ledger cannot be written: the disk is full",
        "the ledger cannot be written: the disk is full (3 more such calls since the last such line)",
        "the ledger cannot be written: the disk is full (1 more such calls since the last such line)",
    ]
    assert {record.levelname for record in caplog.records} == {"ERROR"}
