"""Models that a request names beside its own: the provider may answer with any of them, at that model's price."""

from typing import Any

from addons.providers import splice
from addons.providers.body import JsonObject, optional_list, optional_object, optional_text
from addons.providers.dialect import BadRequestBody

GOVERNING = ("models", "fallbacks", "preset", "providerOptions")
"""Top-level fields that name other models; each may stand once."""
NESTED = (("providerOptions", "gateway"), ("providerOptions", "gateway", "models"))
MOST = 16
"""Names in one request. Each is checked and priced before the call leaves."""


def other_models(request: JsonObject, body: bytes, model: str | None) -> tuple[str, ...]:
    """Every model that the provider may serve instead of `model`, in the request's order. Raises BadRequestBody.

    `models` is OpenRouter's, `fallbacks` Anthropic's and LiteLLM's, `providerOptions.gateway.models` Vercel's. `preset` names
    settings kept at OpenRouter, which may hold any model: it counts as a model `@preset/NAME`, as it may be written there too.
    """
    names = _texts(optional_list(request, "models"), "models")
    fallbacks = optional_list(request, "fallbacks")
    if any(type(entry) is dict for entry in fallbacks):
        _refuse_hidden(request, body)
        fallbacks = [_named(entry, index) if type(entry) is dict else entry for index, entry in enumerate(fallbacks)]
    names += _texts(fallbacks, "fallbacks")
    options = optional_object(request, "providerOptions")
    gateway = optional_object(options, "gateway", "providerOptions.")
    names += _texts(optional_list(gateway, "models", "providerOptions.gateway."), "providerOptions.gateway.models")
    if preset := optional_text(request, "preset"):
        names.append(f"@preset/{preset.removeprefix('@preset/')}")
    found = tuple(name for name in dict.fromkeys(names) if name != model)
    if len(found) > MOST:
        raise BadRequestBody(f"the request names {len(found)} other models; {MOST} are the most")
    return found


def _texts(values: list[Any], where: str) -> list[str]:
    for index, value in enumerate(values):
        if type(value) is not str or not value:
            raise BadRequestBody(f"{where}[{index}] must be the name of a model")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise BadRequestBody(f"{where}[{index}] is not valid Unicode")
    return values


def _named(entry: JsonObject, index: int) -> str:
    name = optional_text(entry, "model", f"fallbacks[{index}].")
    if not name:
        raise BadRequestBody(f"fallbacks[{index}] must name a model")
    return name


def _refuse_hidden(request: JsonObject, body: bytes) -> None:
    """Two `model`s in one entry: servers differ in which one they obey."""
    named = sum(1 for entry in request["fallbacks"] if type(entry) is dict)
    members = splice.members(body, len(body) - len(body.lstrip()))
    text = next(body[member.value_start : member.value_end] for member in members if member.key == "fallbacks")
    if splice.may_hide_keys(text) or text.count(b'"model"') != named:
        raise BadRequestBody("each entry of fallbacks must name its model once, as a plain string")
