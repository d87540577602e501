"""What the bodies of OpenAI-shaped requests have in common: fields, media parts, tools."""

from addons.providers.body import JsonObject, optional_list
from addons.providers.media import image_from_url, media_from_base64
from addons.providers.text import TOKENS_PER_TOOL, Gathered

SEARCHES_MAX = 10
"""Searches one answer may bill when the request sets no ceiling of its own."""

_PROVIDER_TOOLS = ("web_search", "file_search", "mcp", "code_interpreter", "image_generation", "shell")
"""Beginnings of the types of tools that the provider runs itself, reading what they bring as further input."""

NOT_READ = frozenset(
    (
        "model", "metadata", "user", "stream", "stream_options", "logit_bias", "seed", "stop", "store", "n", "best_of",
        "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options",
        "include", "temperature", "top_p",
    )
)  # fmt: skip
"""Top-level fields that no model reads."""


def count_fields(request: JsonObject, gathered: Gathered, handled: frozenset[str]) -> None:
    """Count every other top-level field that could reach the model: tools, schemas, and what other vendors add."""
    for key, value in request.items():
        if key not in handled and key not in NOT_READ and type(value) in (str, list, dict) and value:
            gathered.add_json(value)


def count_tools(request: JsonObject, gathered: Gathered) -> None:
    """The framing of tools; their text is counted as a field."""
    tools = len(optional_list(request, "tools")) + len(optional_list(request, "functions"))
    gathered.tokens += TOKENS_PER_TOOL * tools


def has_provider_tools(request: JsonObject) -> bool:
    """True when the provider may run tools of its own during the answer and read what they bring."""
    return any(_tool_type(tool).startswith(_PROVIDER_TOOLS) for tool in optional_list(request, "tools"))


def searches_max(request: JsonObject, ceiling: int) -> int:
    """The most web searches the answer may make, going by its tools."""
    tools = optional_list(request, "tools")
    return ceiling if any(_tool_type(tool).startswith("web_search") for tool in tools) else 0


def _tool_type(tool: object) -> str:
    kind = tool.get("type") if type(tool) is dict else None
    return kind if type(kind) is str else ""


def find_media(node: JsonObject, gathered: Gathered) -> str | None:
    """Take pictures, sound and files of chat and responses parts; the key under which one was found."""
    kind = node.get("type")
    if type(kind) is not str:
        return None
    handler = _PARTS.get(kind)
    return handler(node, gathered) if handler is not None else None


def _image(node: JsonObject, gathered: Gathered) -> str | None:
    inner = node.get("image_url")
    detail = node.get("detail")
    if type(inner) is dict:
        detail = inner.get("detail", detail)
        inner = inner.get("url")
    if type(inner) is not str:
        if type(node.get("file_id")) is not str:
            return None
        inner = ""
    gathered.media.append(image_from_url(inner, detail if type(detail) is str else ""))
    return "image_url"


def _audio(node: JsonObject, gathered: Gathered) -> str | None:
    inner = node.get("input_audio")
    data = inner.get("data") if type(inner) is dict else None
    if type(data) is not str:
        return None
    gathered.media.append(media_from_base64("audio", data))
    return "input_audio"


def _file(node: JsonObject, gathered: Gathered) -> str | None:
    inner = node.get("file")
    key = "file"
    if type(inner) is not dict:
        inner, key = node, "file_data"
    data = inner.get("file_data")
    if type(data) is not str:
        gathered.unseen = True
        return None
    gathered.media.append(media_from_base64("document", data))
    return key


def _video(node: JsonObject, gathered: Gathered) -> str | None:
    inner = node.get("video_url")
    url = inner.get("url") if type(inner) is dict else inner
    if type(url) is not str:
        return None
    if url[:5].lower() == "data:":
        gathered.media.append(media_from_base64("video", url))
    else:
        gathered.unseen = True
    return "video_url"


def _reference(node: JsonObject, gathered: Gathered) -> str | None:
    gathered.unseen = True
    return None


def _generated_image(node: JsonObject, gathered: Gathered) -> str | None:
    result = node.get("result")
    if type(result) is not str:
        gathered.unseen = True
        return None
    gathered.media.append(media_from_base64("image", result))
    return "result"


_PARTS = {
    "image_url": _image,
    "input_image": _image,
    "computer_screenshot": _image,
    "input_audio": _audio,
    "file": _file,
    "input_file": _file,
    "video_url": _video,
    "item_reference": _reference,
    "image_generation_call": _generated_image,
}
