"""The plan of an import as lines for people: what is made, changed and deleted, amounts in dollars, and what to look at twice."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from addons.process.client import Json
from addons.process.text import few, printable, usd

_SIGNS = {"create": "+", "update": "~", "delete": "-"}
_DONE = {"create": "to make", "update": "to change", "delete": "to delete"}
_NAMES = {"provider_limits": "limits of provider", "pricing_override": "price"}
_LONGEST = 60


def plan_text(plan: Json, name: str) -> str:
    """The whole plan."""
    return "".join(f"{printable(line)}\n" for line in _lines(plan, name))


def counted(plan: Json) -> str:
    """`1 to make, 2 to change`."""
    counts = Counter(str(one["action"]) for one in plan["changes"])
    return ", ".join(f"{counts[action]} {words}" for action, words in _DONE.items() if counts[action])


def _lines(plan: Json, name: str) -> Iterator[str]:
    changes: Sequence[Json] = plan["changes"]
    for one in changes:
        yield f"{_SIGNS[one['action']]} {kind_words(one['kind'])} {one['name']}{_summary(one)}"
        for field in one["fields"]:
            yield f"    {field['path']}: {value_text(field['path'], field['from'])} -> {value_text(field['path'], field['to'])}"
        if one["secret_changed"]:
            yield "    its secret: another one"
    if changes:
        yield ""
        yield f"{name}: {counted(plan)}; {plan['unchanged']} stay as they are"
    else:
        yield f"{name}: nothing to change; {plan['unchanged']} stay as they are"
    if plan["left_alone"]:
        names = [f"{kind_words(one['kind'])} {one['name']}" for one in plan["left_alone"]]
        yield f"not in the file and left alone (--prune deletes them): {few(names)}"
    if plan["new_keys"]:
        yield f"made with a new value: {few(plan['new_keys'])}"
    for warning in plan["warnings"]:
        yield f"warning: {warning}"


def kind_words(kind: str) -> str:
    """`virtual key` for `virtual_key`."""
    return _NAMES.get(kind, kind.replace("_", " "))


def value_text(path: str, value: Any) -> str:
    """A value as a person would say it; amounts are dollars."""
    if value is None:
        return "(default)" if not path.endswith("]") else "(none)"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | Decimal) and path.endswith(".max_limit"):
        return usd(value)
    if isinstance(value, int | Decimal):
        return format(value, "f") if isinstance(value, Decimal) else str(value)
    if isinstance(value, Mapping):
        return _budget(value) if "max_limit" in value else _short("{" + ", ".join(_pairs(path, value)) + "}")
    if isinstance(value, list):
        return _short("[" + ", ".join(value_text(path, item) for item in value) + "]")
    text = str(value)
    return _short(text) if path.endswith("]") else _short(repr(text))


def _pairs(path: str, value: Mapping[str, Any]) -> Iterator[str]:
    for name, item in value.items():
        if name != "id":
            yield f"{name} {value_text(f'{path}.{name}', item)}"


def _summary(one: Json) -> str:
    """What a thing that is made or deleted amounts to."""
    if one["action"] == "update":
        return ""
    document = one["document"]
    parts = [_budget(budget) for budget in document.get("budgets", ())]
    for config in document.get("provider_configs", ()):
        parts += [f"{budget} at {config['provider']}" for budget in map(_budget, config.get("budgets", ()))]
    if document.get("rate_limit"):
        parts.append("rate limit")
    return f"  ({', '.join(parts)})" if parts else ""


def _budget(budget: Mapping[str, Any]) -> str:
    window = budget.get("reset_duration")
    return f"{usd(budget['max_limit'])} {'per ' + window if window else 'prepaid'}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
