"""Token counts where some classes are not told, and when a report may say that it agrees."""

from store.reconcile.types import Fee, Figures, OurCall, Report, Row, Standing, Tokens, Verdict


def test_what_one_side_does_not_know_the_sum_does_not_know() -> None:
    known, partly = Tokens(10, 4, 1, 2), Tokens(5, None, 0, 1)
    assert known + partly == Tokens(15, None, 1, 3)
    assert known.minus(partly) == Tokens(5, None, 1, 1)
    assert partly.minus(partly).is_zero and not known.minus(partly).is_zero
    assert Tokens(0, None, None, 0).is_zero


def test_a_failed_call_is_no_request_and_one_posted_at_its_hold_is() -> None:
    call = OurCall("c", 0, 1, "m", "", Tokens(), 0, 5)
    assert not call.is_request
    assert OurCall("c", 0, 1, "m", "", Tokens(), 5, 5, Standing.UNCONFIRMED).is_request
    assert OurCall("c", 0, 1, "m", "", Tokens(1, 0, 0, 0), 0, 5).is_request


def row(verdict: Verdict, exact: bool = True) -> Row:
    return Row("2026-11-20", "m", Figures(), Figures(), verdict, exact)


def report(*rows: Row, **fields: object) -> Report:
    return Report("openai", 0, rows, **fields)  # type: ignore[arg-type]


def test_when_a_report_agrees_and_when_it_is_exact() -> None:
    good, explained, bad = row(Verdict.AGREES), row(Verdict.EXPLAINED), row(Verdict.DIFFERS)
    fee = Fee("2026-11-20", "search", 1, explained=True)
    cases = [
        (report(good), True, True),
        (report(good, explained), True, False),
        (report(row(Verdict.AGREES, exact=False)), True, False),
        (report(good, bad), False, False),
        (report(), False, False),
        (report(good, uncovered_days=("2026-11-21",)), False, False),
        (report(good, fees=(fee,)), True, False),
        (report(good, fees=(Fee("2026-11-20", "search", 1, explained=False),)), False, False),
    ]
    for made, agrees, exact in cases:
        assert (made.agrees, made.exact) == (agrees, exact)
