"""The fixture files beside these tests, and their days."""

from pathlib import Path

FOLDER = Path(__file__).parent / "exports"
DAY_MS = 86_400_000
NOV_20 = 1_795_132_800_000
NOV_21 = NOV_20 + DAY_MS
NOV_22 = NOV_21 + DAY_MS
NOV_23 = NOV_22 + DAY_MS
