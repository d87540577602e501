"""Which routing rule decides a call, and where it sends it: conditions over what the call says and how full its caps are."""

from collections.abc import Callable, ItemsView, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

from addons.call import Call, Decision, Destination, WayIn
from addons.services import Services
from store.config_store.expressions import NoAnswer
from store.config_store.routing_rules import RoutingRule
from store.ledger.types import Cap, Unit

HIDDEN_HEADERS = frozenset(
    ("authorization", "proxy-authorization", "x-api-key", "x-goog-api-key", "api-key", "x-bf-vk", "cookie", "x-amz-security-token",
     "x-auth-token", "chatgpt-account-id")
)  # fmt: skip
HIDDEN_PARAMS = frozenset(("key", "api_key", "api-key", "access_token", "token", "sig", "signature", "x-amz-security-token"))
"""Credentials: an expression sees these as if they had not been sent."""
_UNITS = {"budget_used": Unit.USD, "tokens_used": Unit.TOKENS, "requests_used": Unit.REQUESTS}
PARAMS_MAX = 100


def decide(
    call: Call, services: Services, caps: Callable[[], tuple[Cap, ...]], can_serve: Callable[[str], bool]
) -> Decision | None:
    """The decision of the first rule that holds, narrowest scope first; chained rules go on with what was decided.

    `caps` are those the call touches as it stands; `can_serve` says whether a provider speaks the call's dialect. None for
    signed bodies, which are never altered, and in forward mode, where the caller's own credential would go to a stranger.
    """
    rules = call.governance().routing_rules
    if not rules or call.way_in is WayIn.FORWARD or call.signed or call.wanted is None:
        return None
    key = call.virtual_key
    ask = rules.of(key.id, key.team_id or "", key.customer_id or "") if key is not None else rules.of("", "", "")
    if not ask:
        return None
    values = _Values(call, services, caps)
    decision: Decision | None = None
    provider: str | None = None
    model: str | None = None
    seen = {(values["provider"], values["model"])}
    for _ in range(services.policy.routing_chain_max_depth):
        found = _first(ask, values, services, can_serve, provider, model)
        if found is None:
            break
        decision = found
        ask = tuple(rule for rule in ask if rule is not found.rule)
        first = found.destinations[0]
        provider, model = first.provider or provider, first.model or model
        values.move(provider, model)
        place = (values["provider"], values["model"])
        if not found.rule.chain_rule or place in seen:
            break
        seen.add(place)
    return decision


def _first(
    ask: tuple[RoutingRule, ...],
    values: "_Values",
    services: Services,
    can_serve: Callable[[str], bool],
    provider: str | None,
    model: str | None,
) -> Decision | None:
    for rule in ask:
        try:
            if not rule.condition.holds(values):
                continue
        except NoAnswer as fault:
            services.rule_faults.note(rule, f"its expression has no answer, {fault}")
            continue
        found = []
        for destination in _destinations(rule, services, provider, model):
            if destination.provider is None or can_serve(destination.provider):
                found.append(destination)
            else:
                services.rule_faults.note(rule, f"provider {destination.provider!r} cannot serve requests of this dialect")
        if found:
            return Decision(rule, tuple(found))
    return None


def _destinations(rule: RoutingRule, services: Services, provider: str | None, model: str | None) -> Iterator[Destination]:
    """The targets, one drawn by weight after the other, those without a share last; then the fallbacks as they stand."""
    targets = rule.targets
    if len(targets) > 1:
        drawn = {id(target): services.random.expovariate(target.weight) for target in targets if target.weight > 0}
        targets = tuple(sorted(targets, key=lambda target: drawn.get(id(target), float("inf"))))
    for target in targets:
        yield Destination(target.provider or provider, target.model or model, target.key_id)
    for fallback in rule.fallbacks:
        head, _, rest = fallback.partition("/")
        yield Destination(head, rest or model)


class _Values(Mapping[str, Any]):
    """The variables of an expression, each found out when it is first asked for."""

    def __init__(self, call: Call, services: Services, caps: Callable[[], tuple[Cap, ...]]) -> None:
        self._call, self._services, self._caps = call, services, caps
        key, wanted = call.virtual_key, call.wanted
        self._known: dict[str, Any] = {
            "model": wanted.model if wanted else "",
            "provider": wanted.provider.name if wanted else "",
            "request_type": call.operation,
            "virtual_key_id": key.id if key else "",
            "virtual_key_name": key.name if key else "",
            "team_id": (key.team_id or "") if key else "",
            "team_name": (key.team_name or "") if key else "",
            "customer_id": (key.customer_id or "") if key else "",
            "customer_name": (key.customer_name or "") if key else "",
        }

    def move(self, provider: str | None, model: str | None) -> None:
        """A rule has decided; the next one sees what it said."""
        self._known.update({name: value for name, value in (("provider", provider), ("model", model)) if value is not None})

    def __getitem__(self, name: str) -> Any:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def get(self, name: str, default: Any = None) -> Any:
        known = self._known
        if name not in known:
            known[name] = self._find(name)
        value = known[name]
        return default if value is None else value

    def __iter__(self) -> Iterator[str]:
        return (name for name, value in self._known.items() if value is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _find(self, name: str) -> Any:
        if name == "headers":
            return _Headers(self._call)
        if name == "params":
            return _params(self._call.query)
        unit = _UNITS.get(name)
        return None if unit is None else self._services.fullness.percent(self._caps(), unit)


class _Headers(Mapping[str, str]):
    """By lower-case name; a doubled one joined by commas (RFC 9110 section 5.3). What is no UTF-8 reads as U+FFFD.

    Most expressions ask for one name, so one is looked up without the others being read.
    """

    def __init__(self, call: Call) -> None:
        self._fields = call.flow.request.headers.fields

    def __getitem__(self, name: str) -> str:
        value: str | None = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def get(self, name: str, default: Any = None) -> Any:
        if name in HIDDEN_HEADERS:
            return default
        if not name.isascii():
            return self._all().get(name, default)
        raw = name.encode()
        found = [value.decode(errors="replace") for field, value in self._fields if field.lower() == raw]
        return ", ".join(found) if found else default

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def items(self) -> ItemsView[str, str]:
        return self._all().items()

    def _all(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for raw_name, raw_value in self._fields:
            name = raw_name.decode("latin-1").lower()
            if name not in HIDDEN_HEADERS:
                value = raw_value.decode(errors="replace")
                found[name] = f"{found[name]}, {value}" if name in found else value
        return found


def _params(query: str) -> dict[str, str]:
    """Of a doubled parameter the last counts."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="replace", max_num_fields=PARAMS_MAX)
    except ValueError:
        return {}
    return {name: value for name, value in pairs if name.lower() not in HIDDEN_PARAMS}
