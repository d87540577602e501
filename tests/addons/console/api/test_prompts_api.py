"""`/api/prompts` over HTTP: versions, comparison, tags, and clear refusals."""

from typing import Any

PROMPTS = "/api/prompts"


async def test_a_prompt_lives_through_its_versions(console: Any) -> None:
    client = console.client
    made = await client.post(PROMPTS, json={"name": "greeting", "text": "Hello", "description": "says hello"})
    prompt = made.json()["prompt"]
    assert made.status_code == 200 and (prompt["version"], prompt["text"]) == (1, "Hello")
    read = await client.get(f"{PROMPTS}/greeting")
    assert read.json() == {"prompt": prompt} and read.headers["etag"] == made.headers["etag"]

    sent_back = await client.put(
        f"{PROMPTS}/{prompt['id']}", json={**prompt, "text": "Hi"}, headers={"If-Match": read.headers["etag"]}
    )
    assert sent_back.status_code == 200 and sent_back.json()["prompt"]["version"] == 2
    stale = await client.put(f"{PROMPTS}/greeting", json={"text": "Ho"}, headers={"If-Match": read.headers["etag"]})
    assert stale.status_code == 412

    added = await client.post(f"{PROMPTS}/greeting/versions", json={"text": "Hey", "note": "warmer"})
    assert added.json()["version"]["version"] == 3
    versions = (await client.get(f"{PROMPTS}/greeting/versions", params={"limit": 2})).json()
    assert ([row["version"] for row in versions["versions"]], versions["total_count"]) == ([3, 2], 3)
    one = (await client.get(f"{PROMPTS}/greeting/versions/1", params={"compare_to": 3})).json()["version"]
    assert (one["text"], one["diff"].splitlines()[-2:]) == ("Hello", ["-Hey", "+Hello"])
    assert "diff" not in (await client.get(f"{PROMPTS}/greeting/versions/1")).json()["version"]
    for method in ("PUT", "DELETE", "PATCH"):
        assert (await client.request(method, f"{PROMPTS}/greeting/versions/1", json={"text": "x"})).status_code == 405

    assert (await client.delete(f"{PROMPTS}/greeting")).json() == {"message": "Prompt deleted successfully"}
    for path in ("greeting", "greeting/versions", "greeting/versions/1", prompt["id"]):
        assert (await client.get(f"{PROMPTS}/{path}")).status_code == 404


async def test_lists_and_bad_input(console: Any) -> None:
    client = console.client
    for name in ("b", "a"):
        await client.post(PROMPTS, json={"name": name, "text": "x"})
    found = (await client.get(PROMPTS, params={"search": "A"})).json()
    assert [row["name"] for row in found["prompts"]] == ["a"] and found["total_count"] == 1
    assert [row["name"] for row in (await client.get(PROMPTS)).json()["prompts"]] == ["a", "b"]
    cases = [
        ({"name": "a", "text": "x"}, 409, "already a prompt named 'a'"),
        ({"name": "c", "txt": "x"}, 400, "txt"),
        ({"name": "c"}, 400, "needs text"),
        ({"name": "c", "text": "x" * 70_000}, 400, "text"),
    ]
    for body, status, words in cases:
        answer = await client.post(PROMPTS, json=body)
        assert (answer.status_code, words in answer.json()["error"]["message"]) == (status, True), answer.text
    half = await client.post(PROMPTS, content=rb'{"name": "c", "text": "\ud800"}')
    assert half.status_code == 400 and "surrogate" in half.json()["error"]["message"]
    for path in ("a/versions/0", "a/versions/x", "a/versions/99999999999999999999"):
        assert (await client.get(f"{PROMPTS}/{path}")).status_code == 404
    assert (await client.get(f"{PROMPTS}/a/versions/1", params={"compare_to": "9"})).status_code == 404


async def test_one_row_of_the_log_each(console: Any) -> None:
    client = console.client
    await client.post(PROMPTS, json={"name": "p", "text": "one"})
    await client.put(f"{PROMPTS}/p", json={"text": "two"})
    await client.post(f"{PROMPTS}/p/versions", json={"text": "three"})
    await client.delete(f"{PROMPTS}/p")
    rows = (await client.get("/api/audit", params={"kind": "prompt"})).json()["entries"][::-1]
    assert [(row["action"], row["entity_name"]) for row in rows] == [
        ("create", "p"), ("update", "p"), ("update", "p"), ("delete", "p"),
    ]  # fmt: skip
    assert [row["after"] and row["after"]["version"] for row in rows] == [1, 2, 3, None]
