"""Files to documents: every packing and listing of pages that people end up with, and every way a file can be broken."""

import gzip
import json
from decimal import Decimal
from pathlib import Path

import pytest

from store.errors import UserError
from store.reconcile import reading
from store.reconcile.reading import Page, Table, parse_documents, read_documents

PAGE = {"data": [{"start_time": 1, "results": []}], "has_more": False}


def bodies(text: str) -> list[object]:
    return [document.body for document in parse_documents(text, "f") if isinstance(document, Page)]


def test_one_page_a_list_and_json_lines_are_the_same() -> None:
    one = json.dumps(PAGE)
    assert bodies(one) == [PAGE]
    assert bodies(f"[{one}, {one}]") == bodies(f"{one}\n{one}\n") == bodies(json.dumps(PAGE, indent=2) * 2) == [PAGE, PAGE]


def test_buckets_taken_out_of_their_page() -> None:
    assert bodies(json.dumps(PAGE["data"])) == [PAGE]


def test_numbers_keep_every_digit() -> None:
    (body,) = bodies('{"data": 0.1234567890123456789012345}')
    assert body == {"data": Decimal("0.1234567890123456789012345")}


def test_places_name_file_and_page() -> None:
    places = [document.place for document in parse_documents(json.dumps(PAGE) * 2, "f.jsonl")]
    assert places == ["f.jsonl, page 1", "f.jsonl, page 2"]


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "a\tb\n1\t2\n", "\n\na,b\r\n1,2\r\n\r\n", '"a","b"\n"1","2"\n'])
def test_tables(text: str) -> None:
    (table,) = parse_documents(text, "t.csv")
    assert isinstance(table, Table)
    assert table.columns == ("a", "b")
    assert [row for _, row in table.rows] == [{"a": "1", "b": "2"}]


def test_a_line_s_number_is_that_of_the_file() -> None:
    (table,) = parse_documents('a,b\n1,"x\ny"\n\n3,4\n', "t.csv")
    assert isinstance(table, Table)
    assert [line for line, _ in table.rows] == [3, 5]


def test_packed_in_parts_and_marked(tmp_path: Path) -> None:
    path = tmp_path / "pages.json.gz"
    path.write_bytes(gzip.compress(json.dumps(PAGE).encode()) + gzip.compress(json.dumps(PAGE).encode()))
    assert len(read_documents(path)) == 2
    path = tmp_path / "marked.csv"
    path.write_bytes("a,b\n1,2\n".encode("utf-8-sig"))
    (table,) = read_documents(path)
    assert isinstance(table, Table) and table.columns == ("a", "b")
    path.write_bytes("a\tb\n1\t2\n".encode("utf-16"))
    (table,) = read_documents(path)
    assert isinstance(table, Table) and table.columns == ("a", "b")


@pytest.mark.parametrize(
    "text,said",
    [
        ("", "f is empty"),
        (" \n ", "f is empty"),
        ('{"data": [', "line 1, column 11: this is not JSON"),
        ('{"data": [],\n oops}', "line 2, column 2: this is not JSON"),
        ('{"data": []} trailing', "line 1, column 14: this is not JSON"),
        ('{"data": NaN}', "a number that cannot be one"),
        ('{"data": ' + "9" * 5000 + "}", "a number that cannot be one"),
        ("[" * 100_000, "nested too deeply"),
        ("[1, 2]", "f, page 1: expected a page of a usage export"),
        ('[{"data": []}, "x"]', "f, page 2: expected a page"),
        ('{"error": {"type": "invalid_request_error", "message": "key sk-secret is wrong"}}', "an error answer"),
        ('{"error": "sk-secret"}', "an error answer"),
        ("a,b\n1\n", "line 2: has 1 values where the first line names 2 columns"),
        ('a,b\n1,"2\n', "this is not CSV"),
    ],
)
def test_broken_texts(text: str, said: str) -> None:
    with pytest.raises(UserError) as fault:
        parse_documents(text, "f")
    assert said in str(fault.value)
    assert "secret" not in str(fault.value) and "\n" not in str(fault.value)


def test_broken_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def complaint(data: bytes | None, name: str = "x.json") -> str:
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(UserError) as fault:
            read_documents(path)
        return str(fault.value)

    packed = gzip.compress(json.dumps(PAGE).encode())
    assert complaint(None, "missing.json") == f"there is no file {tmp_path / 'missing.json'}"
    assert "is a directory" in complaint(None, ".")
    assert "ends too early" in complaint(packed[:-9])
    assert "damaged gzip" in complaint(packed[:12] + b"\xff\xff" + packed[14:])
    assert "is not text" in complaint(b"PK\x03\x04\xff\xfe\xfd")
    monkeypatch.setattr(reading, "MAX_BYTES", 1 << 20)
    assert "larger than 1 MiB" in complaint(b"[" + b" " * (1 << 20))
    assert "larger than 1 MiB" in complaint(gzip.compress(b" " * (4 << 20)))
