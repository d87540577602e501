"""An open gateway around recording doubles, for tests of its hooks, and a CONNECT for it."""

import base64
import json
from typing import Any, cast

from mitmproxy import http

from addons.gateway import Gateway
from addons.proxy.egress import Egress
from addons.proxy.timeouts import Watchdog
from addons.runtime import Runtime
from addons.services import Services
from addons.steps.local import LocalAnswers
from store.config_store.snapshot import VirtualKey
from tests.support import calls
from tests.support.calls import KEY, cap

UNKNOWN = "sk-bf-00000000-0000-4000-8000-000000000000"


async def quota(key: VirtualKey) -> dict[str, Any]:
    return {"virtual_key_name": key.name}


def opened(services: Services | None = None, **fields: Any) -> Gateway:
    """A gateway around recording doubles; real egress rules and a real watchdog."""
    services = services or calls.services(calls.snapshot({KEY: calls.virtual_key(caps=(cap(),))}))
    local = LocalAnswers("1.2.3", cast(Any, None), quota, lambda: {"db_pings": "ok"}, lambda name: ())
    doubles: Any = None
    values: dict[str, Any] = {
        "services": services, "snapshots": services.snapshots, "ledger": services.ledger, "database": doubles, "logs": doubles,
        "logs_database": doubles, "egress": Egress((8080, 8081), False), "watchdog": Watchdog(), "local": local,
    }  # fmt: skip
    return Gateway(Runtime(**(values | fields)))


def refused(of: http.HTTPFlow) -> tuple[int, str]:
    assert of.response is not None
    body = json.loads(of.response.content or b"")
    return of.response.status_code, body.get("type")


def boom(*_: Any, **__: Any) -> Any:
    raise RuntimeError("a fault that knows secret-of-openai")


def connecting(host: str, port: int = 443, key: str | None = KEY) -> http.HTTPFlow:
    of = calls.call("", method="CONNECT", host=host, port=port).flow
    if key is not None:
        of.request.headers["proxy-authorization"] = "Basic " + base64.b64encode(f"any:{key}".encode()).decode()
    return of
