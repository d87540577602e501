"""Finds media, references and free JSON in the parts of a Gemini request."""

from typing import Any

from addons.providers.media import media_from_base64
from addons.providers.text import Gathered

_KINDS = {"image": "image", "audio": "audio", "video": "video"}


def find_media(node: dict[str, Any], gathered: Gathered) -> str | None:
    """Take inline data; note files; count arguments and results of functions as the JSON they are."""
    for key in ("inlineData", "inline_data"):
        inline = node.get(key)
        if type(inline) is dict and type(inline.get("data")) is str:
            return _inline(node, key, inline, gathered)
    for key in ("functionCall", "function_call"):
        if type(node.get(key)) is dict:
            gathered.add_json(node[key])
            return key
    if type(node.get("response")) is dict and "name" in node:
        gathered.add_json(node["response"])
        return "response"
    for key in ("fileData", "file_data"):
        if type(node.get(key)) is dict:
            gathered.unseen = True
            return key
    return None


def _inline(node: dict[str, Any], key: str, inline: dict[str, Any], gathered: Gathered) -> str:
    mime = inline.get("mimeType") or inline.get("mime_type")
    word = mime.split("/")[0].lower() if type(mime) is str else ""
    level = node.get("mediaResolution") or node.get("media_resolution")
    if type(level) is dict:
        level = level.get("level")
    detail = level if type(level) is str else gathered.detail
    media = media_from_base64(_KINDS.get(word, "document"), inline["data"], detail)
    if word == "text":
        # A text file is read as text: at most one token for each byte, whatever a page would count.
        gathered.tokens += media.byte_count
    else:
        gathered.media.append(media)
    return key
