"""Sizes come from real files' headers, and token figures from the providers' formulas, computed here by hand."""

import base64
import io
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addons.providers.dialect import Media
from addons.providers.media import image_from_url, media_from_base64, media_tokens_max, openai_tiles, picture_size


def png(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + bytes(50)


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + bytes(20)


def jpeg(width: int, height: int, before: bytes = b"") -> bytes:
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, height, width, 3) + bytes(9)
    return b"\xff\xd8" + b"\xff\xe0" + struct.pack(">H", 16) + b"JFIF\0" + bytes(9) + before + frame + b"\xff\xda" + bytes(30)


def segment(payload: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload


def webp(form: bytes, payload: bytes) -> bytes:
    return (
        b"RIFF" + struct.pack("<I", 4 + 8 + len(payload)) + b"WEBP" + form + struct.pack("<I", len(payload)) + payload + bytes(20)
    )


def webp_lossy(width: int, height: int) -> bytes:
    return webp(b"VP8 ", b"\x30\x01\x00\x9d\x01\x2a" + struct.pack("<HH", width, height))


def webp_lossless(width: int, height: int) -> bytes:
    return webp(b"VP8L", b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14))


def webp_extended(width: int, height: int) -> bytes:
    return webp(b"VP8X", bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little"))


FILES = [png, gif, jpeg, webp_lossy, webp_lossless, webp_extended]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(FILES), st.integers(1, 16_000), st.integers(1, 16_000))
def test_sizes(make: object, width: int, height: int) -> None:
    data = make(width, height)  # type: ignore[operator]

    assert (width, height) == picture_size(data)
    media = image_from_url("data:image/x;base64," + base64.b64encode(data).decode(), "high")
    assert (width, height, "high", "image") == (media.width, media.height, media.detail, media.kind)
    assert abs(len(data) - media.byte_count) <= 2


def test_previews_inside_a_jpeg_are_not_the_picture() -> None:
    thumbnail = segment(b"Exif\0\0" + jpeg(160, 120))

    assert (4000, 3000) == picture_size(jpeg(4000, 3000, before=thumbnail))


def test_a_jpeg_header_behind_48_kilobytes_is_unknown() -> None:
    late = jpeg(4000, 3000, before=segment(bytes(60_000)))

    media = media_from_base64("image", base64.b64encode(late).decode())
    assert (0, 0) == (media.width, media.height)


def test_base64_of_other_alphabets_and_with_line_breaks() -> None:
    data = png(640, 480)
    broken = "\r\n".join(base64.encodebytes(data).decode().splitlines())

    for text in (base64.urlsafe_b64encode(data).decode().rstrip("="), broken, "data:,%%%" + base64.b64encode(data).decode()):
        media = media_from_base64("image", text)
        assert (media.width, media.height) in ((640, 480), (0, 0))
    assert 640 == media_from_base64("image", broken).width


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=200) | st.binary(max_size=60).map(lambda b: b"\xff\xd8\xff" + b),
    st.sampled_from(["image", "document", "audio", "video"]),
)
def test_any_bytes(data: bytes, kind: str) -> None:
    for text in (base64.b64encode(data).decode(), data.decode("latin-1")):
        media = media_from_base64(kind, text)
        for dialect in ("openai_chat", "anthropic", "gemini"):
            assert 0 <= media_tokens_max(dialect, "m", media) < 10**9


def pdf(pages: int, compressed: bool) -> str:
    tree = b"<< /Type /Pages /Count %d >>" % pages + b"<< /Type /Page >>" * pages
    if compressed:
        tree = b"<< /Type /ObjStm /Filter /FlateDecode >>\nstream\r\n" + zlib.compress(tree) + b"\nendstream"
    return base64.b64encode(b"%PDF-1.7\n" + tree + b"\n%%EOF").decode()


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("pages", [1, 7, 250])
def test_pages_of_a_pdf(pages: int, compressed: bool) -> None:
    assert pages == media_from_base64("document", pdf(pages, compressed)).pages


def test_a_pdf_that_counts_itself_smaller_is_not_believed() -> None:
    lie = base64.b64encode(b"%PDF-1.7 /Count 1 " + b"/Type /Page\n" * 40).decode()

    assert 40 == media_from_base64("document", lie).pages


def test_length_of_a_wav() -> None:
    import wave

    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(bytes(2 * 16_000 * 10))

    media = media_from_base64("audio", base64.b64encode(file.getvalue()).decode())
    assert media.duration_seconds in (10, 11)


def image(width: int = 0, height: int = 0, detail: str = "") -> Media:
    return Media("image", 1000, width, height, detail=detail)


@pytest.mark.parametrize(
    ("width", "height", "tiles"),
    [(512, 512, 1), (1024, 1024, 4), (2048, 4096, 6), (4096, 8192, 6), (800, 600, 4), (3000, 600, 8), (0, 0, 8), (1, 100_000, 4)],
)
def test_openai_tiles(width: int, height: int, tiles: int) -> None:
    """1024 x 1024 → 768 x 768 → 4; 2048 x 4096 → 1024 x 2048 → 768 x 1536 → 2 x 3; 3000 x 600 → 2048 x 410 → 4 x 1."""
    assert openai_tiles(width, height) in ({8: {8, 4}}.get(tiles, {tiles}))


@pytest.mark.parametrize(
    ("dialect", "model", "media", "tokens"),
    [
        # base + tiles
        ("openai_chat", "gpt-4o", image(1024, 1024), 85 + 4 * 170),
        ("openai_chat", "gpt-4o-2024-08-06", image(4096, 8192, "low"), 85),
        ("openai_chat", "gpt-4o-mini", image(1024, 1024), 2833 + 4 * 5667),
        ("openai_chat", "gpt-5", image(512, 512), 70 + 140),
        ("openai_chat", "o3", image(), 75 + 8 * 150),
        ("openai_chat", "gpt-4.1-2025-04-14", image(512, 512), 85 + 170),
        # patches: 1024 x 1024 is 32 x 32 = 1024 of them
        ("openai_chat", "gpt-4.1-mini", image(1024, 1024), 1659),
        ("openai_responses", "gpt-5.2", image(1024, 1024), 1229),
        ("openai_responses", "gpt-5.4", image(4096, 4096), 3000),
        ("openai_responses", "gpt-5.4", image(4096, 4096, "original"), 12_000),
        ("openai_responses", "gpt-5.6", image(3200, 3200), 12_000),
        ("openai_responses", "gpt-5.6", image(), 30_000),
        ("openai_chat", "some-llama", image(), 30_000),
        # 28-px squares, capped
        ("anthropic", "claude-opus-5", image(280, 280), 100),
        ("anthropic", "claude-opus-5", image(4000, 4000), 4784),
        ("anthropic", "claude-sonnet-4-6", image(4000, 4000), 1600),
        ("anthropic", "claude-haiku-4-5-20251001", image(), 1600),
        ("anthropic", "claude-opus-4-7", image(), 4784),
        ("anthropic", "claude-3-7-sonnet-20250219", image(), 1600),
        ("anthropic", "claude-opus-5", Media("document", 1000, pages=3), 15_000),
        ("anthropic", "claude-opus-5", Media("document", 1000), 3_000_000),
        # Gemini
        ("gemini", "gemini-2.5-flash", image(384, 384), 258),
        ("gemini", "gemini-2.5-flash", image(768, 768), 258 * 4),
        ("gemini", "gemini-2.5-flash", Media("audio", 1000, duration_seconds=60), 1920),
        ("gemini", "gemini-2.5-flash", Media("document", 1000, pages=10), 2580),
        ("gemini", "gemini-3-pro", image(4000, 4000), 1120),
        ("gemini", "gemini-3-pro", image(4000, 4000, "MEDIA_RESOLUTION_LOW"), 280),
        ("gemini", "gemini-3-pro", image(4000, 4000, "MEDIA_RESOLUTION_ULTRA_HIGH"), 2240),
        ("gemini", "gemini-3-pro", Media("document", 1000, pages=10), 5600),
    ],
)
def test_tokens(dialect: str, model: str, media: Media, tokens: int) -> None:
    assert tokens == media_tokens_max(dialect, model, media)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(
        [("openai_chat", "gpt-4o"), ("openai_chat", "gpt-5.4"), ("anthropic", "claude-opus-5"), ("gemini", "gemini-2.5-pro")]
    ),
    st.integers(1, 8000),
    st.integers(1, 8000),
)
def test_what_is_unknown_is_never_cheaper(model: tuple[str, str], width: int, height: int) -> None:
    assert media_tokens_max(*model, image(width, height)) <= media_tokens_max(*model, image())
