"""The slim master and its dispatcher, held against mitmproxy's own."""

import asyncio
import logging

import pytest
from mitmproxy import addonmanager, exceptions, hooks, master, options
from mitmproxy.test import tflow

from addons.proxy import mitm
from addons.proxy.limits import Limits
from addons.proxy.master import CachedAddonManager


class StockMaster(master.Master):
    pass


class CachedMaster(master.Master):
    def __init__(self, opts):
        super().__init__(opts)
        self.options.changed.disconnect(self.addons._configure_all)
        self.addons = CachedAddonManager(self)


class Noter:
    def __init__(self, name, log, does=None, addons=()):
        self.name, self.log, self.does, self.addons = name, log, does, list(addons)

    def request(self, flow):
        self.log.append(self.name)
        if self.does is not None:
            raise self.does


class Later(Noter):
    async def request(self, flow):
        await asyncio.sleep(0)
        self.log.append(self.name)
        if self.does is not None:
            raise self.does


class Updated(Noter):
    request = None

    def update(self, flows):
        self.log.append((self.name, len(flows)))


class Silent:
    name = "silent"


def chains(log):
    halt, broken = exceptions.AddonHalt(), ZeroDivisionError("no")
    return {
        "plain": [Noter("a", log), Silent(), Later("b", log)],
        "halt": [Noter("a", log), Later("b", log, halt), Noter("c", log)],
        "broken": [Noter("a", log, broken), Later("b", log, broken), Noter("c", log)],
        "nested": [Noter("a", log, None, [Later("b", log), Noter("c", log)]), Noter("d", log)],
        "nested and broken": [Noter("a", log, broken, [Later("b", log)]), Noter("d", log)],
        "nested and halted": [Noter("a", log, None, [Later("b", log, halt), Noter("c", log)]), Noter("d", log)],
        "updates": [Updated("a", log), Noter("b", log), Updated("c", log)],
    }


@pytest.mark.parametrize("case", list(chains([])))
async def test_dispatch_is_the_same_as_mitmproxys(case):
    results = []
    for kind in (StockMaster, CachedMaster):
        log = []
        owner = kind(options.Options())
        owner.addons.add(*chains(log)[case])
        for _ in range(2):
            await owner.addons.handle_lifecycle(hooks_request())
        results.append(log)
    assert results[0] == results[1]
    assert results[0]


def hooks_request():
    from mitmproxy.proxy.layers.http import HttpRequestHook

    return HttpRequestHook(tflow.tflow())


async def test_options_errors_are_not_swallowed():
    for kind in (StockMaster, CachedMaster):
        owner = kind(options.Options())
        owner.addons.add(Noter("a", [], exceptions.OptionsError("bad")))
        with pytest.raises(exceptions.OptionsError):
            await owner.addons.handle_lifecycle(hooks_request())


async def test_adding_and_removing_addons_is_noticed():
    log = []
    owner = CachedMaster(options.Options())
    first, second = Noter("a", log), Noter("b", log)
    owner.addons.add(first)
    await owner.addons.handle_lifecycle(hooks_request())
    owner.addons.add(second)
    await owner.addons.handle_lifecycle(hooks_request())
    owner.addons.remove(first)
    await owner.addons.handle_lifecycle(hooks_request())
    owner.addons.clear()
    await owner.addons.handle_lifecycle(hooks_request())
    assert log == ["a", "a", "b", "b"]


async def test_a_broken_addon_is_logged_once_without_its_message(caplog):
    owner = CachedMaster(options.Options())
    owner.addons.add(Noter("a", [], ZeroDivisionError("no")))
    await owner.addons.handle_lifecycle(hooks_request())
    assert [record.getMessage() for record in caplog.records] == ["An addon failed in request: ZeroDivisionError"]


async def test_an_addon_without_the_hook_costs_no_call(monkeypatch):
    owner = CachedMaster(options.Options())
    owner.addons.add(*[type(f"Silent{n}", (), {"name": f"s{n}"})() for n in range(30)])
    searched = []
    original = addonmanager.AddonManager._iter_hooks
    monkeypatch.setattr(
        addonmanager.AddonManager, "_iter_hooks", lambda self, addon, event: searched.append(1) or original(self, addon, event)
    )
    for _ in range(10):
        await owner.addons.handle_lifecycle(hooks_request())
    assert len(searched) == 60  # once for the event, once for the update that follows it


async def test_the_master_leaves_the_process_alone(gateway):
    root = logging.getLogger()
    assert "errorcheck" not in gateway.master.addons.lookup
    assert root.level == logging.WARNING
    assert not [handler for handler in root.handlers if type(handler).__name__ == "LegacyLogEvents"]
    logging.getLogger("somebody").error("this must not end the process")
    assert not gateway._task.done()


async def test_what_clients_send_is_not_logged(gateway, caplog):
    caplog.set_level(logging.DEBUG)
    logging.getLogger("mitmproxy").setLevel(logging.WARNING)
    wire = await gateway.wire()
    await wire.send(b"GET / HTTP/1.1\r\nAuthorization: Bearer sk-bf-secret\r\n")
    await wire.close()
    await gateway.recorder.wait_for("client_disconnected")
    wire = await gateway.wire()
    await wire.ask(b"GET /?key=sk-bf-secret HTTP/9\r\n\r\n")
    assert "secret" not in caplog.text


async def test_options_are_the_safe_ones(gateway):
    opts = gateway.master.options
    for name, value in mitm.SAFE_OPTIONS.items():
        if name in opts:
            assert getattr(opts, name) == value, name
    assert {"connection_strategy", "body_size_limit", "http2", "tcp_timeout"} <= set(opts.keys())
    assert opts.ssl_insecure is False


async def test_idle_limits_stay_beyond_our_own_timeouts(confdir):
    mitm.set_limits(Limits(first_byte_timeout_seconds=200_000))
    opts = mitm.make_options(confdir=confdir)
    assert opts.tcp_timeout > 2 * 200_000


@pytest.mark.parametrize("loopback", [True, False])
async def test_stock_tools_take_the_same_options(loopback):
    from mitmproxy.tools.dump import DumpMaster

    dump = DumpMaster(options.Options(), with_termlog=False, with_dumper=False)
    mitm.apply_safe_options(dump.options, listening_on_loopback=loopback)
    assert dump.options.connection_strategy == "lazy"
    assert dump.options.http2 is False
    assert dump.options.rawtcp is False
    assert dump.options.block_global is loopback
    dump.addons.get("errorcheck").finish()


async def test_unknown_hooks_are_dispatched_to_nobody(gateway):
    await gateway.master.addons.trigger_event(hooks.RunningHook())
