"""Provider and gateway of the tests, asked often: over bare HTTP, because each `httpx.Client` loads every root certificate."""

import json
import urllib.error
import urllib.request
from decimal import Decimal
from typing import Any

from tests.support import gateway, provider
from tests.support.config import VIRTUAL_KEY

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _get(url: str, headers: dict[str, str] | None = None) -> bytes:
    with _DIRECT.open(urllib.request.Request(url, headers=headers or {}), timeout=30) as answer:
        body: bytes = answer.read()
        return body


class PretendProcess(provider.PretendProcess):
    """The same provider with a cheap `bill` and `reset`."""

    def bill(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(_get(f"{self.url}/__bill"))
        return answer

    def reset(self) -> None:
        with _DIRECT.open(urllib.request.Request(f"{self.url}/__reset", method="POST"), timeout=30):
            pass


class Gateway(gateway.Gateway):
    """The same gateway with a cheap `quota`, and with it a cheap `spent_nanos`."""

    def health(self) -> int:
        """The status of `/health` on the gateway port."""
        try:
            _get(f"{self.url}/health")
        except urllib.error.HTTPError as refusal:
            refusal.close()
            return refusal.code
        return 200

    def quota(self, key: str = VIRTUAL_KEY) -> dict[str, Any]:
        body = _get(f"{self.url}/api/governance/virtual-keys/quota", {"x-bf-vk": key})
        quota: dict[str, Any] = json.loads(body, parse_float=Decimal)
        return quota
