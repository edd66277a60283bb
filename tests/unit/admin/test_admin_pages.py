"""The pages for people: who gets them, with which policy, and that their files keep to it."""

from __future__ import annotations

import gzip
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from metasrv.admin.app import create_app
from metasrv.admin.pages import CONSOLE, POLICY, REFERENCE, PageFile, load_files
from metasrv.config.model import Config, RaftConfig
from metasrv.state.machine import StateMachine
from metasrv.testing.fake_node import fake_context, sample_status

SIZE_BYTES_MAX = 150_000
LINES_MAX = 400
FILES = load_files()
TOKENS = "prom:read:read-0123456789abcdef\n"


def texts(ending: str) -> dict[str, str]:
    return {name: file.body.decode() for name, file in FILES.items() if name.endswith(ending)}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a node that asks for a token everywhere; it has none."""
    machine = StateMachine.open(str(tmp_path / "state.db"))
    tokens = tmp_path / "tokens"
    tokens.write_text(TOKENS)
    raft = RaftConfig(raft_dir=str(tmp_path))
    config = Config(raft_config=raft, admin_tokens_file=str(tokens), admin_open_routes=())
    app = create_app(fake_context(machine, config, sample_status())[0])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as made:
        yield made
    machine.close()


@pytest.mark.parametrize(("path", "name"), [("/", CONSOLE), ("/ui", CONSOLE), ("/docs", REFERENCE)])
async def test_pages_need_no_token_and_bring_their_policy(client: httpx.AsyncClient, path: str, name: str) -> None:
    page = await client.get(path)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.content == FILES[name].body
    assert page.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert "frame-ancestors 'none'" in POLICY
    assert (await client.head(path)).status_code == 200
    assert (await client.post(path)).status_code == 405
    assert (await client.get("/v1/cluster/status")).status_code == 401


@pytest.mark.parametrize("name", sorted(FILES))
async def test_every_file_is_served_and_asked_for_again_by_its_tag(client: httpx.AsyncClient, name: str) -> None:
    plain = await client.get(f"/ui/{name}", headers={"Accept-Encoding": "identity"})
    assert (plain.status_code, plain.content) == (200, FILES[name].body)
    assert plain.headers["x-content-type-options"] == "nosniff"
    zipped = await client.get(f"/ui/{name}", headers={"Accept-Encoding": "gzip"})
    assert (zipped.headers["content-encoding"], zipped.content) == ("gzip", plain.content)
    again = await client.get(f"/ui/{name}", headers={"If-None-Match": plain.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", ["/ui/", "/ui/nowhere.js", "/ui/..%2Fpages.py", "/ui/../pages.py", "/ui/__init__.py"])
async def test_nothing_else_is_served(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert answer.status_code in (401, 404)
    assert b"import" not in answer.content


async def test_a_page_under_a_name_that_is_not_the_nodes_is_refused(client: httpx.AsyncClient) -> None:
    assert (await client.get("/", headers={"Host": "rebound.example"})).status_code == 421


async def test_the_description_is_the_same_each_time_and_needs_the_token(client: httpx.AsyncClient) -> None:
    headers = {"Authorization": "Bearer read-0123456789abcdef"}
    first, second = [await client.get("/openapi.json", headers=headers) for _ in range(2)]
    assert (first.status_code, second.content) == (200, first.content)
    assert "/v1/cluster/status" in first.json()["paths"]
    assert "/" not in first.json()["paths"]
    assert (await client.get("/openapi.json")).status_code == 401


def test_the_files_are_small_and_readable() -> None:
    assert sum(len(file.body) for file in FILES.values()) < SIZE_BYTES_MAX
    lines = {name: file.body.count(b"\n") for name, file in FILES.items()}
    assert {name: count for name, count in lines.items() if count >= LINES_MAX} == {}
    for name, file in FILES.items():
        assert gzip.decompress(file.zipped) == file.body, name


def test_the_files_need_nothing_from_elsewhere_and_nothing_inline() -> None:
    for name, text in texts(".html").items():
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:", text), name
        for address in re.findall(r'(?:src|href)="([^"]+)"', text):
            assert address.startswith(("/", "#")), (name, address)
            assert not address.startswith("/ui/") or address.removeprefix("/ui/") in FILES, (name, address)
    for name, text in {**texts(".css"), **texts(".js")}.items():
        foreign = [url for url in re.findall(r"https?://[^\s\"'`)]+", text) if not url.startswith(NAMED)]
        assert foreign == [], name
    for name, text in texts(".js").items():
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), name
        assert text.startswith("//"), f"{name} does not say what it is for"


NAMED = ("http://www.w3.org/2000/svg", "https://protobuf.dev/", "https?:")
"""A namespace, a specification in a comment, a pattern; none of them is fetched."""


def test_every_module_that_is_imported_exists_and_is_used() -> None:
    imported = {name for text in texts(".js").values() for name in re.findall(r'from "\./([^"]+)"', text)}
    begun = {name for text in texts(".html").values() for name in re.findall(r'src="/ui/([^"]+\.js)"', text)}
    assert imported | begun == set(texts(".js"))


def test_a_changed_file_has_another_tag() -> None:
    tags = [file.etag for file in FILES.values()]
    assert len(set(tags)) == len(tags)
    assert all(isinstance(file, PageFile) for file in FILES.values())
