"""How a worker lets go when a newer one serves beside it: no call is refused and no connection is cut in the middle."""

import asyncio

from mitmproxy import http

from addons.gateway import Gateway
from addons.process.children import Told
from addons.proxy import mitm

LOOK_SECONDS = 0.5
QUIET_LOOKS = 4
"""A kept connection on which nothing came for so many looks is closed. Clients expect that of any server; sooner could meet a
request that is on its way."""


class LastAnswers:
    """A mitmproxy addon: answers from now on tell the client that its connection ends with them, so that the next call comes in
    on a new connection, at a newer worker."""

    name = "tollgate last answers"

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        response = flow.response
        # 101: the connection belongs to another protocol now, and the header says to which.
        if response is not None and response.status_code >= 200:
            response.headers["connection"] = "close"

    def response(self, flow: http.HTTPFlow) -> None:
        # The head of a streamed answer has gone out already: closing after it would be a surprise.
        if flow.response is not None and not flow.response.stream:
            self.responseheaders(flow)


async def hand_over(gateway: Gateway, master: mitm.SlimMaster, seconds: float, told: Told) -> float:
    """Stop accepting and serve what is connected until that is gone, at most for `seconds`, or until told to end.

    Calls on kept connections are served like any other. Connections without a call are closed once they are quiet; raw tunnels stay
    to the end. Returns the seconds that are left for the drain: none when the time was up, all of them when told to end.
    """
    await mitm.stop_accepting(master)
    master.addons.add(LastAnswers())  # type: ignore[no-untyped-call]
    quiet = mitm.QuietClients(QUIET_LOOKS)
    loop = asyncio.get_running_loop()
    end_by = loop.time() + seconds
    reasons = {loop.create_task(event.wait()) for event in (told.end, told.hurry)}
    while mitm.live_connections() and not told.end.is_set() and not told.hurry.is_set():
        left = end_by - loop.time()
        if left <= 0:
            break
        await asyncio.wait(reasons, timeout=min(LOOK_SECONDS, left), return_when=asyncio.FIRST_COMPLETED)
        quiet.close(busy={call.flow.client_conn.id for call in gateway.calls.values()})
    for reason in reasons:
        reason.cancel()
    return seconds if told.end.is_set() else max(0.0, end_by - loop.time())
