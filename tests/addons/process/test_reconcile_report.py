"""The table, the sentences and the last line of a reconciliation."""

from dataclasses import replace

from addons.process.reconcile_report import headline, report_json, report_text
from store.reconcile.types import Cause, Fee, Figures, Finding, Report, Row, Tokens, Verdict

GOOD = Row("2026-11-20", "gpt-4o", Figures(3, Tokens(1_234_567, 1000, None, 50), 3_500_000_000),
           Figures(3, Tokens(1_234_567, 1000, 20, 50), 3_500_000_001), Verdict.AGREES, exact=True)  # fmt: skip
BAD = Row("2026-11-21", "gpt-5", Figures(None, Tokens(10, 0, 0, 5), 2_000_000), Figures(1, Tokens(8, 0, 0, 6), 1_000_000),
          Verdict.DIFFERS, exact=True, findings=(Finding(Cause.OUTSIDE, "some are more and some less"),))  # fmt: skip
GUESS = Row(
    "2026-11-21", "o1", Figures(1, Tokens(1, 0, 0, 1), 5), Figures(1, Tokens(1, 0, 0, 2), 6), Verdict.EXPLAINED, exact=False
)
MONEY_ONLY = Row("2026-11-20", "m", Figures(None, None, 5), Figures(None, None, 5), Verdict.AGREES, exact=True)
CENT = 10_000_000


def test_the_table_is_read_by_columns() -> None:
    text = report_text(Report("openai", CENT, (GOOD, BAD)))
    lines = [line.rstrip() for line in text.splitlines()]
    assert lines[:7] == [
        "DAY         MODEL    SIDE        REQUESTS      INPUT  CACHE READ  CACHE WRITE  OUTPUT           USD",
        "2026-11-20  gpt-4o   openai             3  1,234,567       1,000            -      50          3.50",
        "                     books              3  1,234,567       1,000           20      50   3.500000001",
        "            agrees   difference         0          0           0            -       0  -0.000000001",
        "2026-11-21  gpt-5    openai             -         10           0            0       5         0.002",
        "                     books              1          8           0            0       6         0.001",
        "            differs  difference         -         +2           0            0      -1        +0.001",
    ]
    assert "2026-11-21 gpt-5: some are more and some less" in lines


def test_a_name_in_the_export_cannot_steer_the_terminal() -> None:
    row = replace(BAD, model="gpt\x1b[2J\nagrees exactly", findings=())
    text = report_text(Report("openai", CENT, (row,), notes=("a\x07b",)))
    assert "\x1b" not in text and "\x07" not in text and "\nagrees exactly" not in text


def test_the_last_line_and_only_it_says_whether_it_agrees() -> None:
    fee = Fee("2026-11-20", "web search tool calls", 20_000_000, explained=False)
    cases = [
        (Report("openai", CENT, (GOOD,)), "agrees exactly for 1 day, 1 model: tokens, amounts within $0.01"),
        (Report("openai", CENT, (MONEY_ONLY,)), "agrees exactly for 1 day, 1 model: amounts within $0.01, tokens not compared"),
        (
            Report("openai", CENT, (GOOD, GUESS)),
            "agrees for 2 days, 2 models: tokens, amounts within $0.01; 1 row explained above or with calls that our books do not"
            " know exactly",
        ),
        (Report("openai", CENT, (GOOD, BAD)), "DOES NOT AGREE for 2 days, 2 models: 1 of 2 rows differ"),
        (Report("openai", CENT, (GOOD,), (fee,)), "DOES NOT AGREE for 1 day, 1 model: 1 fee not in the books"),
        (
            Report("openai", CENT, (GOOD,), uncovered_days=("2026-11-21", "2026-11-22")),
            "DOES NOT AGREE for 1 day, 1 model: the export does not cover 2026-11-21 to 2026-11-22",
        ),
        (Report("openai", CENT, ()), "nothing to compare: neither the export nor the books have calls on these days"),
        (Report("openai", CENT, (), uncovered_days=("2026-11-21",)), "NOTHING COMPARED: the export does not cover 2026-11-21"),
    ]
    for report, line in cases:
        assert headline(report) == line
        assert report_text(report).splitlines()[-1] == line


def test_fees_notes_and_rows_without_a_reason() -> None:
    silent = Row("2026-11-20", "x", Figures(1, Tokens(1, 0, 0, 1), 1), Figures(1, Tokens(), 1), Verdict.DIFFERS, exact=True)
    fees = (Fee("2026-11-20", "search", 20_000_000, explained=True), Fee("2026-11-21", "storage", 1, explained=False))
    text = report_text(Report("openai", CENT, (silent,), fees, notes=("page 2 is missing",)))
    assert "2026-11-20 x: the books know of no reason" in text
    assert "2026-11-20 fee search: $0.02, inside the calls' amounts of our books" in text
    assert "2026-11-21 fee storage: $0.000000001, not in our books" in text
    assert "note: page 2 is missing" in text


def test_the_same_for_programs() -> None:
    made = report_json(Report("openai", CENT, (GOOD, BAD), (Fee("2026-11-20", "search", 5, explained=True),), ("note",)))
    assert (made["agrees"], made["exact"], made["tolerance_usd"], made["notes"]) == (False, False, "0.01", ["note"])
    good, bad = made["rows"]
    assert good["theirs"] == {
        "requests": 3, "input_tokens": 1_234_567, "cache_read_tokens": 1000, "cache_write_tokens": None, "output_tokens": 50,
        "cost_usd": "3.5",
    }  # fmt: skip
    assert good["difference"]["cost_usd"] == "-0.000000001"
    assert (bad["verdict"], bad["findings"]) == ("differs", [{"cause": "outside", "text": "some are more and some less"}])
    assert made["fees"] == [{"day": "2026-11-20", "description": "search", "cost_usd": "0.000000005", "explained": True}]
