"""Describes pictures, documents and sound from their first bytes, and bounds the tokens a provider counts for them."""

import base64
import binascii
import re
import zlib

from addons.providers.dialect import Media

_HEAD_CHARACTERS = 64 * 1024
"""Base64 characters looked at to find a picture's size: 48 kB of picture."""
_FIRST_CHARACTERS = 256
_MAX_DOCUMENT_CHARACTERS = 48 * 1024 * 1024
_MAX_INFLATED_BYTES = 8 * 1024 * 1024
_URL_SAFE = bytes.maketrans(b"-_", b"+/")

MAX_PAGES = 600
_PAGE_COUNT = re.compile(rb"/Count\s+(\d{1,6})")
_PAGE = re.compile(rb"/Type\s*/Page(?![a-zA-Z])")
_OBJECT_STREAM = re.compile(rb"/ObjStm\b.{0,400}?stream\r?\n", re.DOTALL)


def image_from_url(url: str, detail: str = "") -> Media:
    """A picture that is given by a URL: its size from a `data:` URL, nothing known of any other."""
    if url[:5].lower() != "data:":
        return Media("image", detail=detail)
    return media_from_base64("image", url, detail)


def media_from_base64(kind: str, data: str, detail: str = "") -> Media:
    """Media given as base64, bare or as a `data:` URL. `kind` as in Media; what cannot be read stays 0."""
    start = data.find(",") + 1 if data[:5].lower() == "data:" else 0
    byte_count = max(1, (len(data) - start) * 3 // 4)
    if kind == "image":
        width, height = _picture_size(data, start)
        return Media(kind, byte_count, width, height, detail=detail)
    if kind == "document":
        return Media(kind, byte_count, pages=_pages(data, start), detail=detail)
    if kind == "audio":
        return Media(kind, byte_count, duration_seconds=_wav_seconds(data, start, byte_count), detail=detail)
    return Media(kind, byte_count, detail=detail)


def _decoded(data: str, start: int, characters: int) -> bytes:
    """The bytes of at most so many base64 characters; what is no base64 is skipped, as decoders do."""
    raw = data[start : start + characters].encode("ascii", "ignore").translate(_URL_SAFE, b" \r\n\t=")
    try:
        return base64.b64decode(raw[: len(raw) - len(raw) % 4])
    except binascii.Error:
        return b""


def _picture_size(data: str, start: int) -> tuple[int, int]:
    head = _decoded(data, start, _FIRST_CHARACTERS)
    if head[:3] == b"\xff\xd8\xff":
        return _jpeg_size(_decoded(data, start, _HEAD_CHARACTERS))
    return picture_size(head)


def picture_size(head: bytes) -> tuple[int, int]:
    """Width and height in pixels from the beginning of a PNG, GIF, JPEG or WebP file; (0, 0) when unknown."""
    if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) >= 24:
        return int.from_bytes(head[16:20]), int.from_bytes(head[20:24])
    if head[:6] in (b"GIF87a", b"GIF89a") and len(head) >= 10:
        return int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _webp_size(head)
    if head[:3] == b"\xff\xd8\xff":
        return _jpeg_size(head)
    return 0, 0


def _webp_size(head: bytes) -> tuple[int, int]:
    if len(head) < 30:
        return 0, 0
    form = head[12:16]
    if form == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if form == b"VP8L" and head[20] == 0x2F:
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if form == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF
    return 0, 0


def _jpeg_size(head: bytes) -> tuple[int, int]:
    """The size in the frame header, found by stepping from segment to segment (previews inside segments are skipped)."""
    at = 2
    while at + 9 <= len(head):
        if head[at] != 0xFF:
            return 0, 0
        marker = head[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(head[at + 7 : at + 9]), int.from_bytes(head[at + 5 : at + 7])
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 2
            continue
        length = int.from_bytes(head[at + 2 : at + 4])
        if length < 2:
            return 0, 0
        at += 2 + length
    return 0, 0


def _pages(data: str, start: int) -> int:
    """Pages of a PDF, the highest number any part of it gives; 0 when it gives none."""
    if _decoded(data, start, 16)[:5] != b"%PDF-" or len(data) - start > _MAX_DOCUMENT_CHARACTERS:
        return 0
    document = _decoded(data, start, len(data))
    pages = _pages_in(document)
    room = _MAX_INFLATED_BYTES
    for match in _OBJECT_STREAM.finditer(document):
        if room <= 0:
            break
        try:
            inflated = zlib.decompressobj().decompress(document[match.end() : match.end() + room], room)
        except zlib.error:
            continue
        room -= len(inflated)
        pages = max(pages, _pages_in(inflated))
    return pages


def _pages_in(text: bytes) -> int:
    counted = max((int(number) for number in _PAGE_COUNT.findall(text)), default=0)
    return max(counted, len(_PAGE.findall(text)))


def _wav_seconds(data: str, start: int, byte_count: int) -> int:
    head = _decoded(data, start, 64)
    if head[:4] != b"RIFF" or head[8:16] != b"WAVEfmt " or len(head) < 32:
        return 0
    bytes_per_second = int.from_bytes(head[28:32], "little")
    return -(-byte_count // bytes_per_second) if bytes_per_second else 0


# --- tokens -------------------------------------------------------------------------------------------------------

_LOWEST_BYTES_PER_SECOND = 1000
"""Sound of unknown length is taken for speech at 8 kbit/s."""
_LOWEST_VIDEO_BYTES_PER_SECOND = 4000
_MOST_IMAGE_TOKENS = 30_000
_ANTHROPIC_PAGE_TOKENS = 5_000
_OPENAI_PAGE_TOKENS = 5_000


def media_tokens_max(dialect: str, model: str | None, media: Media) -> int:
    """The most input tokens that the provider of this dialect may count for one piece of media.

    What is not known (size, pages, length, model) is taken at the dearest it can be; callers cap the whole input at
    the model's context.
    """
    name = (model or "").lower().rsplit("/", 1)[-1]
    if dialect == "anthropic":
        return _anthropic_tokens(name, media)
    if dialect == "gemini" or name.startswith("gemini"):
        return _gemini_tokens(name, media)
    return _openai_tokens(name, media)


def _up(value: int, unit: int) -> int:
    return -(-value // unit)


def _document_tokens(media: Media, tokens_per_page: int) -> int:
    """By pages when they are known; a text file by its bytes; else as if it had all the pages allowed."""
    return min(media.pages or MAX_PAGES, MAX_PAGES) * tokens_per_page


def _anthropic_tokens(model: str, media: Media) -> int:
    if media.kind == "document":
        return _document_tokens(media, _ANTHROPIC_PAGE_TOKENS)
    most = 1_600 if _is_older_claude(model) else 4_784
    if media.kind == "image" and media.width and media.height:
        return min(most, _up(media.width, 28) * _up(media.height, 28))
    return most


_CLAUDE_VERSION = re.compile(r"claude-(?:[a-z]+-)?(\d)(?:[-.](\d{1,2}))?(?!\d)")


def _is_older_claude(model: str) -> bool:
    """Models before 4.7, which see pictures at a lower resolution."""
    match = _CLAUDE_VERSION.search(model)
    return match is not None and (int(match[1]), int(match[2] or 0)) < (4, 7)


_GEMINI_VERSION = re.compile(r"gemini-(\d+)")
_GEMINI_RESOLUTIONS = (("ultra_high", 2_240), ("high", 1_120), ("medium", 560), ("low", 280))


def _gemini_tokens(model: str, media: Media) -> int:
    match = _GEMINI_VERSION.search(model)
    older = match is not None and int(match[1]) < 3
    detail = media.detail.lower()
    at_resolution = next((tokens for word, tokens in _GEMINI_RESOLUTIONS if detail.endswith(word)), 0)
    if media.kind == "audio":
        return 32 * _seconds(media, _LOWEST_BYTES_PER_SECOND)
    if media.kind == "video":
        return (263 + 32 if older else max(70, min(at_resolution, 280)) + 32) * _seconds(media, _LOWEST_VIDEO_BYTES_PER_SECOND)
    if media.kind == "document":
        return _document_tokens(media, 258 if older else at_resolution or 560)
    if not older:
        return at_resolution or 1_120
    return 258 * _gemini_tiles(media.width, media.height)


def _gemini_tiles(width: int, height: int) -> int:
    """Tiles of a picture under both readings of the documentation: fixed 768 px, or two thirds of the shorter side."""
    most = 16
    if not width or not height:
        return most
    if width <= 384 and height <= 384:
        return 1
    unit = max(1, min(768, max(256, min(width, height) * 2 // 3)))
    return min(most, max(_up(width, 768) * _up(height, 768), _up(width, unit) * _up(height, unit)))


def _seconds(media: Media, lowest_bytes_per_second: int) -> int:
    return media.duration_seconds or _up(media.byte_count, lowest_bytes_per_second) or 1


_TILE_MODELS = (
    ("gpt-4o-mini", 2833, 5667),
    ("gpt-4o", 85, 170),
    ("chatgpt-4o", 85, 170),
    ("gpt-4.1-mini", 0, 0),
    ("gpt-4.1-nano", 0, 0),
    ("gpt-4.1", 85, 170),
    ("gpt-4.5", 85, 170),
    ("gpt-4-turbo", 85, 170),
    ("gpt-5-mini", 0, 0),
    ("gpt-5-nano", 0, 0),
    ("gpt-5.1", 70, 140),
    ("gpt-5-", 70, 140),
    ("o1", 75, 150),
    ("o3", 75, 150),
)
"""(beginning of the model's name, base, per tile); 0 marks models that count patches although the next row would fit."""
_PATCH_MODELS = (("gpt-4.1-mini", 162), ("gpt-4.1-nano", 246), ("gpt-5-mini", 162), ("gpt-5-nano", 246), ("o4-mini", 172))
"""(beginning of the model's name, tokens per hundred patches); others 120."""
_GPT_VERSION = re.compile(r"gpt-(\d+)(?:\.(\d+))?")


def _openai_tokens(model: str, media: Media) -> int:
    if media.kind == "audio":
        return 10 * _seconds(media, _LOWEST_BYTES_PER_SECOND)
    if media.kind == "document":
        return _document_tokens(media, _OPENAI_PAGE_TOKENS)
    if media.kind == "video":
        return 295 * _seconds(media, _LOWEST_VIDEO_BYTES_PER_SECOND)
    if model == "gpt-5":
        model = "gpt-5-"
    for beginning, base, per_tile in _TILE_MODELS:
        if model.startswith(beginning):
            if base:
                return base if media.detail == "low" else base + per_tile * openai_tiles(media.width, media.height)
            break
    return _openai_patch_tokens(model, media)


def openai_tiles(width: int, height: int) -> int:
    """512-px tiles after scaling into 2048 x 2048 and then to a shorter side of 768 px; 8 when the size is unknown."""
    if not width or not height:
        return 8
    longer, shorter = max(width, height), min(width, height)
    if longer > 2048:
        longer, shorter = 2048, _up(shorter * 2048, longer)
    if shorter > 768:
        longer, shorter = _up(longer * 768, shorter), 768
    return _up(longer, 512) * _up(shorter, 512)


def _openai_patch_tokens(model: str, media: Media) -> int:
    hundredths = next((rate for beginning, rate in _PATCH_MODELS if model.startswith(beginning)), 120)
    match = _GPT_VERSION.match(model)
    version = (int(match[1]), int(match[2] or 0)) if match else None
    if version is None and not model.startswith(("o4", "computer-use", "codex")):
        # Models of other makers behind the same protocol: finer patches than any known one.
        patches = _up(media.width, 16) * _up(media.height, 16)
        return min(_MOST_IMAGE_TOKENS, patches * 12 // 10 + 1) if patches else _MOST_IMAGE_TOKENS
    patches = _up(media.width, 32) * _up(media.height, 32)
    most = _patch_budget(version or (0, 0), media.detail)
    patches = min(patches, most) if patches else most
    return _up(patches * hundredths, 100)


def _patch_budget(version: tuple[int, int], detail: str) -> int:
    """The most patches a picture is scaled down to."""
    if version >= (5, 6):
        return 2_500 if detail in ("high", "low") else 25_000
    if version >= (5, 4):
        return 10_000 if detail == "original" else 2_500
    return 6_144
