"""What every child does: it takes its orders, ends when it is told to or when nobody is left to tell it, and says what is wrong."""

import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from addons.process.accepted import read_accepted
from addons.process.children import adopt, configure_logging, report_ready, say, say_error
from addons.process.options import ChildSpec
from tests.addons.process.one_child import OneChild

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX knows them")

CHILD = """
import asyncio, os, signal, sys
from addons.process import children
from addons.process.children import listen_to_supervisor, read_spec, report_ready, run_loop
from store.errors import StoreUnavailable, UserError

async def main():
    told = listen_to_supervisor()
    report_ready()
    await told.end.wait()
    print("ended", flush=True)

async def fail(fault):
    raise fault

spec, settings = read_spec("worker")
"""


def spec_for(app_dir: Path, config: Path | None = None) -> ChildSpec:
    return ChildSpec("worker", str(app_dir), str(config) if config else None, "127.0.0.1", 0, "127.0.0.1", 0, None)


def test_sigterm_ends_it(tmp_path: Path) -> None:
    with OneChild(spec_for(tmp_path), code=CHILD + "run_loop(main())") as child:
        assert child.line() == "ready\n"
        child.process.send_signal(signal.SIGTERM)
        assert child.end() == (0, "ended\n", "")


def test_the_end_of_its_lifeline_ends_it(tmp_path: Path) -> None:
    with OneChild(spec_for(tmp_path), code=CHILD + "run_loop(main())") as child:
        assert child.line() == "ready\n"
        child.drop_lifeline()
        assert child.end() == (0, "ended\n", "")


def test_a_lifeline_that_broke_before_anybody_waited_counts(tmp_path: Path) -> None:
    code = CHILD + "assert children._ended.wait(10)\nrun_loop(main())"
    with OneChild(spec_for(tmp_path), code=code) as child:
        child.drop_lifeline()
        assert child.end() == (0, "ready\nended\n", "")


def test_what_comes_after_the_orders_is_no_reason_to_end(tmp_path: Path) -> None:
    with OneChild(spec_for(tmp_path), code=CHILD + "run_loop(main())") as child:
        assert child.line() == "ready\n"
        assert child.process.stdin is not None
        child.process.stdin.write(b"more\n")
        assert child.process.poll() is None
        child.drop_lifeline()
        assert child.end() == (0, "ended\n", "")


def test_being_told_again_after_the_end_does_no_harm(tmp_path: Path) -> None:
    """Service managers signal the whole family at once, and the supervisor signals its children then."""
    code = CHILD + "run_loop(main())\nos.kill(os.getpid(), signal.SIGTERM)\nprint('well', flush=True)"
    with OneChild(spec_for(tmp_path), code=code) as child:
        assert child.line() == "ready\n"
        child.process.send_signal(signal.SIGTERM)
        assert child.end() == (0, "ended\nwell\n", "")


@pytest.mark.parametrize(
    "fault,exit_code",
    [("UserError('mend this, please')", 2), ("StoreUnavailable('mend this, please')", 1)],
)
def test_a_fault_that_has_a_sentence_is_one_line(tmp_path: Path, fault: str, exit_code: int) -> None:
    with OneChild(spec_for(tmp_path), code=CHILD + f"run_loop(fail({fault}))") as child:
        assert child.end() == (exit_code, "", "tollgate: mend this, please\n")


def test_any_other_fault_is_shown_in_full(tmp_path: Path) -> None:
    with OneChild(spec_for(tmp_path), code=CHILD + "run_loop(fail(KeyError('odd')))") as child:
        code, _, printed = child.end()
    assert code == 1 and "Traceback" in printed and "KeyError: 'odd'" in printed


def test_orders_for_another_role_are_refused(tmp_path: Path) -> None:
    console = spec_for(tmp_path).to_line().replace(b'"worker"', b'"console"')
    with OneChild(spec_for(tmp_path), code=CHILD, orders=console) as child:
        code, _, printed = child.end()
    assert code == 1 and "orders for a console came to a worker" in printed


def test_the_settings_come_from_the_file_that_the_orders_name(tmp_path: Path) -> None:
    config = tmp_path / "mine.json"
    config.write_text(json.dumps({"gateway": {"min_output_tokens": 77}}))
    code = CHILD + "print(spec.role, settings.gateway.min_output_tokens, flush=True)"
    with OneChild(spec_for(tmp_path, config), code=code) as child:
        assert child.end() == (0, "worker 77\n", "")
    with OneChild(spec_for(tmp_path), code=code) as child:
        assert child.end() == (0, "worker 256\n", "")


def test_a_file_that_became_wrong_meanwhile_is_one_line_and_two(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text("{")
    with OneChild(spec_for(tmp_path, config), code=CHILD) as child:
        code, printed, complained = child.end()
    assert (code, printed) == (2, "")
    (line,) = complained.splitlines()
    assert line.startswith("tollgate: ") and "config.json" in line and "line 1" in line


# -- what the supervisor says while it runs

TALKING = CHILD.replace(
    "    await told.end.wait()",
    "    told.family = lambda report: print('family', report.decode(), flush=True)\n"
    "    await told.retire.wait()\n    print('retiring', flush=True)\n    await told.hurry.wait()",
)


def tell(child: OneChild, data: bytes) -> None:
    assert child.process.stdin is not None
    child.process.stdin.write(data)


def test_questions_are_answered_and_wishes_heard_in_any_pieces(tmp_path: Path) -> None:
    with OneChild(spec_for(tmp_path), code=TALKING + "run_loop(main())") as child:
        assert child.line() == "ready\n"
        for piece in (b"pi", b"ng 1\nping", b" 22\nnonsense\n\nping 3\nfamily ", b'{"a": 1}\n'):
            tell(child, piece)
        assert [child.line() for _ in range(4)] == ["pong 1\n", "pong 22\n", "pong 3\n", 'family {"a": 1}\n']
        tell(child, b"retire\n")
        assert child.line() == "retiring\n"
        tell(child, b"hurry\n")
        assert child.end() == (0, "ended\n", "")


def test_a_loop_that_does_not_turn_does_not_answer(tmp_path: Path) -> None:
    busy = "    import time\n    time.sleep(1.0)\n    print('late', flush=True)\n"
    code = TALKING.replace("    report_ready()\n", "    report_ready()\n" + busy)
    with OneChild(spec_for(tmp_path), code=code + "run_loop(main())") as child:
        assert child.line() == "ready\n"
        tell(child, b"ping 1\n")
        assert [child.line(), child.line()] == ["late\n", "pong 1\n"]


def test_what_was_said_before_anybody_listened_is_not_lost(tmp_path: Path) -> None:
    code = TALKING + "import time\ntime.sleep(0.3)\nrun_loop(main())"
    with OneChild(spec_for(tmp_path), code=code, orders=spec_for(tmp_path).to_line() + b"ping 1\nretire\nping 2\n") as child:
        assert sorted(child.line() for _ in range(4)) == ["pong 1\n", "pong 2\n", "ready\n", "retiring\n"]


def test_settings_that_follow_the_orders_go_before_the_file(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"gateway": {"min_output_tokens": 5}}')
    settings = read_accepted(config, {})
    config.write_text("no longer JSON")
    spec = replace(spec_for(tmp_path, config), settings_follow=True)
    code = CHILD + "print(settings.gateway.min_output_tokens, flush=True)\nrun_loop(main())"
    with OneChild(spec, code=code, orders=spec.to_line() + settings.to_line() + b"ping 7\n") as child:
        assert sorted([child.line(), child.line(), child.line()]) == ["5\n", "pong 7\n", "ready\n"]


def test_large_settings_come_whole(tmp_path: Path) -> None:
    keys = [{"name": f"key-{number}", "description": "x" * 500} for number in range(1000)]
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"governance": {"virtual_keys": keys}}))
    spec = replace(spec_for(tmp_path, config), settings_follow=True)
    line = read_accepted(config, {}).to_line()
    assert len(line) > 500_000
    with OneChild(spec, code=CHILD + "print(len(settings.governance.virtual_keys))", orders=spec.to_line() + line) as child:
        assert child.end() == (0, "1000\n", "")


def test_hang_ups_and_interrupts_of_the_terminal_are_for_the_supervisor(tmp_path: Path) -> None:
    code = CHILD + "children.ignore_terminal_signals()\nrun_loop(main())"
    with OneChild(spec_for(tmp_path), code=code) as child:
        assert child.line() == "ready\n"
        for number in (signal.SIGHUP, signal.SIGINT):
            child.process.send_signal(number)
        tell(child, b"ping 1\n")
        assert child.line() == "pong 1\n"


# -- small parts


def test_ready_is_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    report_ready()
    say_error("mend this")
    say("well")
    assert capsys.readouterr() == ("ready\nwell\n", "tollgate: mend this\n")


def test_inherited_sockets_do_not_block() -> None:
    with socket.create_server(("127.0.0.1", 0)) as original:
        (adopted,) = adopt([os.dup(original.fileno())])
        with adopted:
            assert adopted.getsockname() == original.getsockname()
            with pytest.raises(BlockingIOError):
                adopted.accept()
    assert adopt([]) == []


@contextmanager
def bare_logging() -> Iterator[None]:
    """Logging as in a fresh process."""
    loggers = [logging.getLogger(name) for name in (None, "addons", "store")]
    levels, handlers = [logger.level for logger in loggers], logging.root.handlers
    logging.root.handlers = []
    try:
        yield
    finally:
        logging.root.handlers = handlers
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@pytest.mark.parametrize(
    "level,ours,others",
    [
        ("debug", logging.DEBUG, logging.DEBUG),
        ("info", logging.INFO, logging.WARNING),
        ("warning", logging.WARNING, logging.WARNING),
        ("error", logging.ERROR, logging.ERROR),
        ("nonsense", logging.INFO, logging.WARNING),
    ],
)
def test_libraries_are_quiet_unless_more_is_asked_for(level: str, ours: int, others: int) -> None:
    with bare_logging():
        configure_logging(level, "worker")
        names = ("addons.gateway", "store.ledger", "mitmproxy.proxy")
        assert [logging.getLogger(name).getEffectiveLevel() for name in names] == [ours, ours, others]


def test_a_line_of_the_log_names_its_process_and_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with bare_logging():
        configure_logging("info", "worker")
        logging.getLogger("addons.gateway").warning("a call of %s", "somebody")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.endswith(" WARNING worker addons.gateway: a call of somebody\n")
