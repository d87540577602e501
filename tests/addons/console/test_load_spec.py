"""What can be typed behind `tollgate.load`."""

import pytest

from addons.console.load_spec import LoadSpec, instant, parse_load

NOW_MS = 1_795_438_800_000  # 2026-11-23T13:00:00Z
MIDNIGHT_MS = 1_795_392_000_000
KEY_ID = "01a208b0-a849-7087-bca3-a1b937a132ba"


@pytest.mark.parametrize(
    ("words", "spec"),
    [
        ([], LoadSpec()),
        (
            ["key=workshop since=yesterday"],
            LoadSpec((), {"virtual_key_names": ("workshop",), "start_ms": MIDNIGHT_MS - 86_400_000}),
        ),
        ([f"key={KEY_ID}"], LoadSpec((), {"virtual_key_ids": (KEY_ID,)})),
        (["model=a,b", "status=refused", "limit=7"], LoadSpec((), {"models": ("a", "b"), "statuses": ("refused",)}, 7)),
        (["id=01,02"], LoadSpec(("01", "02"))),
        (["limit=999999"], LoadSpec(limit=2000)),
        (["text=quota", "until=2026-11-23"], LoadSpec((), {"text": "quota", "end_ms": MIDNIGHT_MS})),
    ],
)
def test_conditions(words: list[str], spec: LoadSpec) -> None:
    assert parse_load(words, now_ms=NOW_MS, max_limit=2000) == spec


@pytest.mark.parametrize(
    "word", ["key", "=x", "key=", "colour=red", "limit=0", "limit=-1", "limit=1.5", "since=soon", "since=9999999y"]
)
def test_what_is_not_understood_says_so(word: str) -> None:
    with pytest.raises(ValueError, match=r"not understood|not a number|not a time"):
        parse_load([word], now_ms=NOW_MS, max_limit=2000)


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("today", MIDNIGHT_MS), ("2h", NOW_MS - 7_200_000), ("7d", NOW_MS - 604_800_000), ("1w", NOW_MS - 604_800_000),
        ("2026-11-23T13:00:00Z", NOW_MS), ("2026-11-23T14:00:00+01:00", NOW_MS), ("2026-11-23T13:00", NOW_MS), ("999999w", 0),
    ],
)  # fmt: skip
def test_times(text: str, at_ms: int) -> None:
    assert instant(text, NOW_MS) == at_ms
