"""The live tests themselves, run against the pretend provider and a pretend usage API: proof of their code, not of a provider."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import ROOT
from tests.support.provider import PretendProcess
from tests.support.usage_api import ADMIN_KEY, UsageApi

LIVE = "tests/live/test_live_providers.py"


def run_live(tmp_path: Path, **variables: str) -> tuple[int, str]:
    """Exit code and summary of the live tests under these variables."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("TOLLGATE_", "OPENAI_", "ANTHROPIC_", "GEMINI_"))
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", LIVE, "-q", "-rs", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'live'}"],
        cwd=ROOT, env=kept | variables, capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.timeout(180)
def test_every_live_test_passes_against_the_pretend_provider(tmp_path: Path) -> None:
    with PretendProcess() as provider, UsageApi(lambda: provider.bill()["lines"]) as api:
        code, printed = run_live(
            tmp_path, TOLLGATE_LIVE="1", TOLLGATE_LIVE_WAIT_SECONDS="10",
            OPENAI_API_KEY="sk-pretend", ANTHROPIC_API_KEY="sk-ant-pretend", GEMINI_API_KEY="pretend",
            OPENAI_ADMIN_KEY=ADMIN_KEY, ANTHROPIC_ADMIN_KEY=ADMIN_KEY,
            **{f"TOLLGATE_LIVE_{name}_URL": provider.url for name in ("OPENAI", "ANTHROPIC", "GEMINI")},
            **{f"TOLLGATE_LIVE_{name}_ADMIN_URL": api.url for name in ("OPENAI", "ANTHROPIC")},
        )  # fmt: skip
        assert code == 0, printed
        assert "11 passed, 1 skipped" in printed, printed
        assert "gemini has no usage API that reconcile reads" in printed
        assert provider.bill()["calls"] == 6 + 5 + 5
        assert len(api.asked) >= 2


@pytest.mark.timeout(120)
def test_they_fail_when_the_provider_counts_otherwise(tmp_path: Path) -> None:
    with PretendProcess() as provider:

        def dearer() -> list[dict[str, Any]]:
            lines: list[dict[str, Any]] = provider.bill()["lines"]
            for line in lines:
                line["usage"]["output_tokens"] += 1
                line["cost_nanos"] += 600
            return lines

        with UsageApi(dearer) as api:
            code, printed = run_live(
                tmp_path, TOLLGATE_LIVE="1", TOLLGATE_LIVE_WAIT_SECONDS="2",
                OPENAI_API_KEY="sk-pretend", OPENAI_ADMIN_KEY=ADMIN_KEY,
                TOLLGATE_LIVE_OPENAI_URL=provider.url, TOLLGATE_LIVE_OPENAI_ADMIN_URL=api.url,
            )  # fmt: skip
            assert code == 1 and "1 failed, 3 passed, 8 skipped" in printed, printed
            assert "calls that did not go through the gateway" in printed


def test_they_are_skipped_with_the_reason(tmp_path: Path) -> None:
    code, printed = run_live(tmp_path, OPENAI_API_KEY="sk-pretend")
    assert code == 0 and "TOLLGATE_LIVE=1 is not set: spends real money" in printed
