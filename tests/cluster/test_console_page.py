"""The console in a real browser: every state of a cluster, on a desktop and on a phone, and what a reader does with it.

The answers are made up (`tests/support/console_scenes.py`), the pages are the real ones. Pictures of all of this:
`python -m tests.support.console_server --pictures DIRECTORY`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import StartCluster
from tests.support.chromium import DESKTOP, PHONE, PROGRAM, Chromium, Page
from tests.support.console_scenes import STATES
from tests.support.console_server import BUSY, KEYS_OFF, TOKEN, ConsoleServer

pytestmark = [
    pytest.mark.skipif(not PROGRAM, reason="not installed: chromium"),
    pytest.mark.xdist_group("chromium"),
]
OpenPage = Callable[..., Page]

TITLES = {
    "healthy": "One more failure is tolerated",
    "one-node-lost": "One more failure stops the cluster",
    "lagging": "One more failure stops the cluster",
    "no-leader": "No leader",
    "no-majority": "No majority: 1 of 3 voters answers",
    "learner": "One more failure is tolerated",
    "removed": "Node 4 is no longer a member",
    "read-only": "The cluster is read-only",
    "quota": "One more failure is tolerated",
    "disk-stalls": "One more failure stops the cluster",
    "disk-full": "One more failure is tolerated",
    "clock-off": "One more failure is tolerated",
    "drained": "One more failure is tolerated",
    "first-start": "One more failure is tolerated",
    "waiting": "This node does not belong to a cluster yet",
    "lone": "There is one voter: its failure stops the cluster",
    "seven": "One more failure is tolerated",
}
TONES = {
    **dict.fromkeys(("healthy", "learner", "first-start", "lone"), "ok"),
    **dict.fromkeys(("no-leader", "no-majority", "removed"), "critical"),
}
"""Colours of the sentence at the top; the others are warnings, whatever the failure tolerance."""
SAID = {
    "healthy": ["Node 1 leads in term 7. 3 of 3 voters answer.", "All 14 checks pass", "no problems"],
    "one-node-lost": ["one problem", "Node 3, a voter, was not heard for 48.2 s: it is down, stopped or cut off."],
    "lagging": ["Node 2 lags behind", "1,310 entries", "The disk of node 2 is slow", "A write of its log takes 480 ms"],
    "no-leader": ["an election should end within seconds", "no leader is known", "1 of 14 checks fail", "not ready"],
    "no-majority": [
        *("This node refuses writes and consistent reads until it hears one more voter", "Node 2 · 10.0.4.12:28101"),
        *("No acknowledged write is lost", "Node 3 is silent"),
    ],
    "learner": ["Node 4, which shows this page, is a learner", "220 entries"],
    "removed": [
        *("Stop it, or empty its data directory", "Node 4 was removed from the cluster", "Node 1 · 10.0.4.11:28101"),
        "what it shows of the others is what it knew last",
    ],
    "read-only": [
        *("Writes are refused, reads are answered. One more failure is tolerated.", "moving to meta-b"),
        "metactl cluster read-only off",
    ],
    "quota": ["The quota is nearly used up", "111,149,056 of 125,829,120 bytes", "All 14 checks pass, 1 warns"],
    "disk-stalls": ["The disk of node 1 does not answer", "a write of the raft log has not finished for 14.2 s"],
    "disk-full": ["The disk of node 1 is full or cannot be written", "has 30.0 MiB left", "2 of 3"],
    "clock-off": ["The clock of node 3 is off", "Node 3's clock is 4210 ms ahead of the majority's", "+4.21 s"],
    "drained": ["An operator drained node 2; metactl node drain 2 --off or a restart ends that."],
    "first-start": ["Nothing is stored yet", "metactl upsert --grpc-api-address 127.0.0.1:9191", "--to 2"],
    "waiting": ["What it waits for: meta1.example:28103: no connection within 2000 ms"],
    "lone": ["It is the only voter, so there is no second copy."],
    "seven": ["5 of 6 voters answer. Node 7 is a learner", "Node 5 is silent"],
}


@pytest.fixture
def server() -> Iterator[ConsoleServer]:
    with ConsoleServer() as made:
        yield made


@pytest.fixture
def open_page(server: ConsoleServer, tmp_path: Path) -> Iterator[OpenPage]:
    """Opens a page of the node; nothing may have gone wrong in any of them."""
    with Chromium(tmp_path) as browser:

        def make(path: str = "/", size: tuple[int, int] = DESKTOP, theme: str = "light", settled: bool = True) -> Page:
            page = browser.page(size, theme)
            page.open(server.url + path)
            if settled:
                page.wait_for("document.body.dataset.state === 'known'")
            return page

        yield make
        assert [error for page in browser.pages.values() for error in page.errors] == []


def test_the_page_shows_a_living_cluster(open_page: OpenPage) -> None:
    """The short form of everything below; `make test-long` runs the rest."""
    page = open_page(size=PHONE)
    assert page.text(".verdict-title") == "One more failure is tolerated"
    assert [page.text(f"[data-key='{node}'] .role") for node in (1, 2, 3)] == ["leader", "follower", "follower"]
    assert page.overflow() == 0
    before = page.evaluate("document.querySelector('.plot .line').getAttribute('d')")
    page.wait_for(f"document.querySelector('.plot .line').getAttribute('d') !== {json.dumps(before)}")


async def test_a_real_node_serves_it(start_cluster: StartCluster, tmp_path: Path) -> None:
    cluster = start_cluster(1)
    await cluster.boot()
    with Chromium(tmp_path) as browser:
        page = browser.page()
        page.open(f"http://{cluster.nodes[1].admin}/")
        page.wait_for("document.body.dataset.connection === 'live'")
        page.wait_for("document.querySelectorAll('.node').length === 1 && document.querySelectorAll('.event').length > 0")
        page.wait_for("document.querySelectorAll('#action-list .card').length >= 4")
        page.open(f"http://{cluster.nodes[1].admin}/docs")
        page.wait_for("document.querySelectorAll('.route').length > 10")
        assert page.errors == []


def test_every_state_is_told(server: ConsoleServer) -> None:
    assert TITLES.keys() == SAID.keys() == STATES.keys() >= TONES.keys()
    server.situation = "no-majority"
    assert server.state()["cluster"]["leader_id"] is None


@pytest.mark.long
@pytest.mark.parametrize("situation", STATES)
def test_each_state_is_designed(server: ConsoleServer, open_page: OpenPage, tmp_path: Path, situation: str) -> None:
    server.situation = situation
    for size, theme in ((DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light")):
        page = open_page(size=size, theme=theme)
        page.wait_for("document.querySelectorAll('#action-list .card').length > 0")
        assert page.text(".verdict-title").startswith(TITLES[situation])
        assert (
            page.evaluate("document.querySelector('.verdict').className") == f"verdict {TONES.get(situation, 'warning')}"
        )
        text = page.text("main")
        assert [words for words in SAID[situation] if words not in text + page.text("#summary")] == []
        assert "undefined" not in text
        assert "NaN" not in text
        assert page.overflow() == 0
        assert is_dark(page) == (theme == "dark")
        picture = tmp_path / "picture.png"
        page.picture(picture)
        assert picture.stat().st_size > 20_000
        page.close()


@pytest.mark.long
def test_a_line_shows_only_what_was_measured_on_it(server: ConsoleServer, open_page: OpenPage) -> None:
    """Round trips are between a node and the one that answers; lags are the leader's."""
    texts = "[...document.querySelectorAll('.edge text')].map((text) => text.textContent)"
    assert open_page().evaluate(texts) == ["lag 0", "0.51 ms", "lag 0", "0.61 ms"]
    server.situation = "learner"
    assert open_page().evaluate(texts) == ["lag 0", "lag 0", "lag 220", "0.41 ms"]


def is_dark(page: Page) -> bool:
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")) < 3 * 128


@pytest.mark.long
def test_a_node_that_goes_away_says_where_to_go_on(server: ConsoleServer, open_page: OpenPage) -> None:
    page = open_page()
    server.situation = "down"
    page.wait_for("document.body.dataset.connection === 'lost'")
    assert page.text(".verdict-title") == "Node 1 does not answer"
    links = page.evaluate("[...document.querySelectorAll('.elsewhere a')].map((link) => link.href)")
    assert links == ["http://10.0.4.12:28101/", "http://10.0.4.13:28101/"]
    assert "What is below was true at" in page.text("#verdict")
    assert json.loads(page.evaluate("localStorage.getItem('metasrv.nodes')"))["answered_by"] == 1
    server.situation = "healthy"
    page.wait_for("document.body.dataset.connection === 'live'")
    assert page.text(".verdict-title") == "One more failure is tolerated"


@pytest.mark.long
def test_a_token_is_asked_for_and_stays_out_of_addresses(server: ConsoleServer, open_page: OpenPage) -> None:
    server.situation = "token"
    page = open_page(settled=False)
    page.wait_for("document.body.dataset.connection === 'token'")
    assert "This node asks for a token" in page.text()
    for token in ("wrong", TOKEN):
        page.wait_for("document.getElementById('token-text')?.checkVisibility()")
        page.evaluate(f"document.getElementById('token-text').value = {json.dumps(token)}")
        page.evaluate("document.getElementById('token-form').requestSubmit()")
        if token == "wrong":
            page.wait_for("document.querySelector('#token .failed')")
            assert "has no valid token" in page.text("#token")
    page.wait_for("document.body.dataset.connection === 'live'")
    assert page.evaluate("document.getElementById('token').hidden")
    addresses = page.evaluate("[location.href, ...performance.getEntriesByType('resource').map((entry) => entry.name)]")
    assert [address for address in addresses if TOKEN in address] == []
    assert page.evaluate("Object.values(localStorage).join()").find(TOKEN) == -1
    page.click("#forget")
    page.wait_for("document.body.dataset.connection === 'token'")


@pytest.mark.long
@pytest.mark.parametrize(
    ("situation", "title", "words"),
    [
        ("absent", "This node has no console", "not found"),
        ("busy", "This node does not serve the console now", BUSY),
    ],
)
def test_a_node_that_refuses_says_why(
    server: ConsoleServer, open_page: OpenPage, situation: str, title: str, words: str
) -> None:
    server.situation = situation
    page = open_page(settled=False)
    page.wait_for(f"document.body.dataset.connection === '{situation}'")
    assert page.text(".verdict-title") == title
    assert words in page.text(".verdict-text")


@pytest.mark.long
def test_problems_are_announced_by_title_and_once(server: ConsoleServer, open_page: OpenPage) -> None:
    server.situation = "lagging"
    page = open_page()
    said = "2 problems. Warning: Node 2 lags behind. Warning: The disk of node 2 is slow."
    assert page.evaluate("document.querySelector('[aria-live=polite]#announcement').textContent") == said
    page.evaluate(
        """window.said = 0;
        new MutationObserver(() => { window.said += 1; }).observe(document.getElementById('announcement'), {
            childList: true, characterData: true, subtree: true });"""
    )
    server.situation = "healthy"
    page.wait_for("document.getElementById('announcement').textContent === 'No problems.'")
    assert page.evaluate("window.said") == 1


@pytest.mark.long
def test_a_runbook_folds_out_and_stays_open(server: ConsoleServer, open_page: OpenPage) -> None:
    server.situation = "no-leader"
    page = open_page()
    page.click("#problems .critical summary")
    page.wait_for("document.querySelector('#problems .runbook-text h4')")
    assert page.text("#problems .runbook-text h4") == "No leader"
    assert "systemctl stop metasrv\nmetasrv check" in page.text("#problems .runbook-text"), "a command a line"
    time.sleep(1)  # the state comes again several times
    assert page.evaluate("document.querySelector('#problems .critical details').open") is True
    page.click("#problems .runbook-text [data-slug='another-cluster']")
    page.wait_for("document.querySelector('#problems .runbook-text h4').innerText !== 'No leader'")
    page.click("#node-list .failing summary")
    page.wait_for("document.querySelector('#node-list .failing .runbook-text h4')")


@pytest.mark.long
def test_what_a_node_cannot_know_is_not_drawn(server: ConsoleServer, open_page: OpenPage) -> None:
    """A removed node hears of no links, no leader and no readiness; what the whole cluster says is said once."""
    server.situation = "removed"
    page = open_page()
    assert page.evaluate("document.querySelectorAll('.edge').length") == 0
    assert page.evaluate("document.querySelector('.facts')") is None
    links = page.evaluate("[...document.querySelectorAll('#verdict .elsewhere a')].map((link) => link.href)")
    assert links == [f"http://10.0.4.{10 + node_id}:28101/" for node_id in (1, 2, 3)]
    assert page.evaluate("[...document.querySelectorAll('.failing b')].map((name) => name.textContent)") == ["member"]
    server.situation = "read-only"
    page.wait_for("document.querySelector('.verdict-title').textContent === 'The cluster is read-only'")
    assert page.evaluate("document.querySelectorAll('.failing, .notice').length") == 0
    assert page.text(".problem code") == "metactl cluster read-only off"


@pytest.mark.long
def test_actions_name_their_consequence_and_wait_for_a_yes(server: ConsoleServer, open_page: OpenPage) -> None:
    page = open_page()
    page.wait_for("document.querySelector('[data-name=transfer]')")
    assert page.evaluate("document.querySelector('[data-name=drain]') !== null")
    page.click("[data-name=transfer]")
    assert "Node 1 stops leading" in page.text("#dialog")
    assert server.acted == []
    for _ in range(8):  # the focus does not leave the dialog for the page below
        page.press("Tab")
        assert (
            page.evaluate("document.activeElement.closest('#dialog') || document.activeElement === document.body")
            is not None
        )
    page.press("Escape")
    page.wait_for("!document.getElementById('dialog').open")
    assert server.acted == []
    page.click("[data-name=transfer]")
    page.evaluate("document.querySelector('#dialog select').value = '2'")
    page.evaluate("document.querySelector('#dialog form').requestSubmit()")
    page.wait_for("document.querySelector('#dialog .done')")
    assert page.text("#dialog .done") == "Node 2 was asked to take over from node 1."
    assert server.acted == [("/v1/ctrl/trigger_transfer_leader?to=2", "console")]
    page.click("#dialog [data-action=close]")
    page.click("[data-name=snapshot]")
    page.evaluate("document.querySelector('#dialog form').requestSubmit()")
    page.wait_for("document.querySelector('#dialog .failed')")
    assert page.text("#dialog .failed") == "the node is stopping"


@pytest.mark.long
async def test_a_real_node_is_drained_and_put_back(start_cluster: StartCluster, tmp_path: Path) -> None:
    cluster = start_cluster(3)
    await cluster.boot()
    with Chromium(tmp_path) as browser:
        page = browser.page()
        page.open(f"http://{cluster.nodes[2].admin}/")
        for choice, said in (("true", "Node 2 is drained."), ("false", "Node 2 is in service.")):
            page.wait_for("document.querySelector('[data-name=drain]')")
            page.click("[data-name=drain]")
            page.evaluate(f"document.querySelector('#dialog select').value = '{choice}'")
            page.evaluate("document.querySelector('#dialog form').requestSubmit()")
            page.wait_for("document.querySelector('#dialog .done')")
            assert page.text("#dialog .done") == said
            status = await cluster.status(2)
            assert status is not None
            assert status["drained"] is (choice == "true")
            page.click("#dialog [data-action=close]")
        assert page.errors == []


@pytest.mark.long
def test_a_profile_opens_as_a_flame_graph(server: ConsoleServer, open_page: OpenPage) -> None:
    page = open_page()
    page.wait_for("document.querySelector('[data-name=cpu]')")
    page.click("[data-name=cpu]")
    page.evaluate("document.querySelector('#dialog form').requestSubmit()")
    page.wait_for("document.querySelector('.flame')")
    assert server.acted == [("/debug/pprof/profile?seconds=5&format=folded", "console")]
    shown = "[...document.querySelectorAll('.flame')].map((box) => box.textContent)"
    assert len(page.evaluate(shown)) == 10
    page.evaluate("[...document.querySelectorAll('.flame')].find((box) => box.textContent.startsWith('apply')).click()")
    assert page.text(".flame-detail") == "apply (state.machine:88) · 150 samples · 27.5 %"
    assert page.evaluate(shown)[-1].startswith("put")
    search = "document.querySelector('#dialog input[type=search]')"
    page.evaluate(f"{search}.value = 'apply'; {search}.dispatchEvent(new Event('input'))")
    assert "27.5 % of all samples" in page.text("#dialog")


@pytest.mark.long
def test_a_log_level_is_changed_for_a_time(server: ConsoleServer, open_page: OpenPage) -> None:
    page = open_page()
    page.wait_for("document.querySelector('[data-name=logLevel]')")
    page.click("[data-name=logLevel]")
    page.wait_for("document.querySelectorAll('#loggers option').length === 6")
    assert "goes back by itself" in page.text("#dialog")
    assert "Now: root info, metasrv.raft warn." in page.text("#dialog")
    assert server.acted == []
    page.evaluate("document.querySelector('#dialog [name=logger]').value = 'metasrv.nowhere'")
    page.evaluate("document.querySelector('#dialog form').requestSubmit()")
    page.wait_for("document.querySelector('#dialog .failed')")
    assert page.text("#dialog .failed") == "there is no logger 'metasrv.nowhere'"
    page.evaluate("document.querySelector('#dialog [name=logger]').value = 'metasrv.raft'")
    page.evaluate("document.querySelector('#dialog [name=seconds]').value = '60'")
    page.evaluate("document.querySelector('#dialog form').requestSubmit()")
    page.wait_for("document.querySelector('#dialog .done')")
    assert page.text("#dialog .done").startswith("metasrv.raft logs from debug on until ")
    body = '{"logger":"metasrv.raft","level":"debug","seconds":60}'
    assert server.acted[-1] == (f"/v1/log-levels {body}", "console")


@pytest.mark.long
def test_diagnostics_are_downloaded_after_a_yes(server: ConsoleServer, open_page: OpenPage) -> None:
    page = open_page()
    page.wait_for("document.querySelector('[data-name=diagnostics]')")
    page.evaluate(
        """HTMLAnchorElement.prototype.click = function () {
            window.saved = { name: this.download, scheme: this.protocol }; };"""
    )
    page.click("[data-name=diagnostics]")
    assert "Secrets and stored values are left out" in page.text("#dialog")
    assert server.acted == []
    page.evaluate("document.querySelector('#dialog [name=seconds]').value = '0'")
    page.evaluate("document.querySelector('#dialog form').requestSubmit()")
    page.wait_for("document.querySelector('#dialog .done')")
    name = "metasrv-node-1-20261127T194428Z.tar.gz"
    assert page.text("#dialog .done") == f"{name}, 8 B, is saved by your browser."
    assert page.evaluate("window.saved") == {"name": name, "scheme": "blob:"}
    assert server.acted == [("/v1/diagnostics?seconds=0", "console")]


@pytest.mark.long
def test_slow_writes_are_shown_with_their_keys_where_these_are_on(server: ConsoleServer, open_page: OpenPage) -> None:
    page = open_page()
    assert page.text("#write-list") == ""
    page.click("#writes [data-action=writes]")
    page.wait_for("document.querySelector('#write-list table')")
    rows = "[...document.querySelectorAll('#write-list tbody tr')].map((row) => row.innerText.split('\\t'))"
    assert [row[1:] for row in page.evaluate(rows)][:2] == [
        ["5 s", "311 B", "Transaction", "1", "unknown outcome", "__fd_table_by_id/981"],
        [
            *("413 ms", "3.8 MiB", "Transaction", "14", "done"),
            "__fd_table_copied_files/981/a, __fd_table_copied_files/981/b and 12 more",
        ],
    ]
    page.click("#write-list [data-list=largest]")
    page.wait_for("document.querySelector('#write-list [data-list=largest]').getAttribute('aria-pressed') === 'true'")
    assert page.evaluate(rows)[0][2] == "3.8 MiB"
    server.offers_keys = False
    page.click("#write-list [data-list=slowest]")
    page.wait_for("document.querySelector('#write-list').innerText.includes('keys are not shown')")
    assert "__fd_" not in page.text("#write-list")


@pytest.mark.long
async def test_a_real_node_gives_all_three(start_cluster: StartCluster, tmp_path: Path) -> None:
    cluster = start_cluster(1)
    await cluster.boot()
    async with cluster.client(1) as client:
        await client.upsert("key", b"value")
    with Chromium(tmp_path) as browser:
        page = browser.page()
        page.open(f"http://{cluster.nodes[1].admin}/")
        page.wait_for("document.querySelector('[data-name=diagnostics]')")
        page.click("#writes [data-action=writes]")
        page.wait_for("document.querySelector('#write-list tbody tr')")
        for name, said in (("logLevel", "metasrv logs from debug on until "), ("diagnostics", "metasrv-node-1-")):
            page.click(f"[data-name={name}]")
            page.evaluate("document.querySelector('#dialog form').requestSubmit()")
            page.wait_for("document.querySelector('#dialog .done')")
            assert page.text("#dialog .done").startswith(said)
            page.click("#dialog [data-action=close]")
        page.wait_for("document.getElementById('event-list').innerText.includes('the log level of metasrv is debug')")
        assert page.errors == []


@pytest.mark.long
def test_a_minute_of_the_strip_opens_as_a_flame_graph(server: ConsoleServer, open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page()
    page.wait_for("document.querySelectorAll('.minute').length === 11")
    assert "What this node was doing" in page.text("#minutes")
    heights = "[...document.querySelectorAll('.minute rect')].map((bar) => Number(bar.getAttribute('height')))"
    assert page.evaluate(heights)[4:7] == [25, 35, 14]
    assert page.evaluate("document.querySelectorAll('.minute')[5].title").endswith("at work in 86.7 % of 60 looks")
    page.picture(tmp_path / "strip.png")
    page.evaluate("document.querySelectorAll('.minute')[5].click()")
    page.wait_for("document.querySelector('#dialog .flame')")
    (asked,) = server.asked
    assert int(asked["to_ms"][0]) - int(asked["from_ms"][0]) == 60_000
    assert asked["format"] == ["folded"]
    assert "one minute" in page.text("#dialog-title")
    assert "52 looks" in page.text(".flame-detail")
    assert server.acted == [], "looking at what is kept is no action"
    page.picture(tmp_path / "minute.png")
    phone = open_page(size=PHONE)
    phone.wait_for("document.querySelectorAll('.minute').length === 11")
    assert phone.overflow() == 0


@pytest.mark.long
def test_a_memory_profile_shows_what_changed(server: ConsoleServer, open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page()
    page.wait_for("document.querySelector('[data-name=memory]')")
    page.click("[data-name=memory]")
    page.wait_for("document.querySelectorAll('#dialog select[name=base] option').length === 2")
    page.evaluate("document.querySelector('#dialog select').value = '20261127T031205Z'")
    page.evaluate("document.querySelector('#dialog form').requestSubmit()")
    page.wait_for("document.querySelector('.flame')")
    assert server.acted == [("/debug/mem/pprof/profile?seconds=5&base=20261127T031205Z&format=folded", "console")]
    assert page.text(".flame-detail") == "all · 869 KiB before, 3.05 MiB now: +2.2 MiB"
    shades = "Object.fromEntries([...document.querySelectorAll('.flame')].map((box) => [box.textContent, box.className]))"
    shown = {name.split(" ")[0]: kind.split(" ")[1] for name, kind in page.evaluate(shades).items()}
    assert (shown["apply"], shown["decode"], shown["keep"]) == ("more-1", "less-1", "more-1")
    page.picture(tmp_path / "difference.png")


@pytest.mark.long
async def test_a_real_node_shows_its_last_minutes(start_cluster: StartCluster, tmp_path: Path) -> None:
    cluster = start_cluster(1)
    await cluster.boot()
    async with cluster.client() as client:
        for _ in range(200):
            await client.upsert("key", b"value")
    with Chromium(tmp_path) as browser:
        page = browser.page()
        page.open(f"http://{cluster.nodes[1].admin}/")
        page.wait_for("document.querySelectorAll('.minute').length >= 1")
        page.evaluate("document.querySelector('.minute').click()")
        page.wait_for(
            "document.querySelector('#dialog .flame, #dialog .outcome .quiet')?.textContent !== 'Waiting for the node …'"
        )
        # The picture that the node makes itself, opened from its page of links.
        page.open(f"http://{cluster.nodes[1].admin}/debug/home")
        page.wait_for("document.querySelectorAll('a').length === 6")
        page.evaluate("document.querySelectorAll('a')[4].click()")
        page.wait_for("document.querySelectorAll('#boxes > g').length > 0")
        assert ">Memory of node 1, " in page.evaluate("document.documentElement.innerHTML")
        page.evaluate("search.value = 'run'; search.dispatchEvent(new Event('input'))")
        assert "% of all" in page.evaluate("found.textContent")
        page.evaluate("[...document.querySelectorAll('#boxes > g')].at(-1).dispatchEvent(new MouseEvent('click'))")
        assert page.evaluate("document.querySelectorAll('#boxes > g[display=none]').length") > 0
        assert page.errors == []


@pytest.mark.long
def test_keys_are_read_only_when_asked_for(server: ConsoleServer, open_page: OpenPage) -> None:
    page = open_page()
    assert page.text("#key-list").startswith("Counts and sizes")
    page.evaluate("document.getElementById('key-form').requestSubmit()")
    page.wait_for("document.querySelector('[data-action=record]')")
    assert "48,310" in page.text("#key-list")
    forms = {"greeting": ("Text", "hello"), "settings": ("JSON", '"retention_days": 30'), "table": ("Protobuf", "orders")}
    for key, (form, words) in forms.items():
        page.click(f"[data-action=record][data-key={key}]")
        page.wait_for(f"document.querySelector('.record h3')?.innerText === {json.dumps(key)}")
        assert page.text(".record .choice[aria-pressed=true]") == form
        assert words in page.text(".value-form")
    page.evaluate("[...document.querySelectorAll('.record .choice')].at(-1).click()")
    assert page.text(".value-form").startswith("000000  08 e9 07 12")
    server.offers_keys = False
    page.evaluate("document.getElementById('key-form').requestSubmit()")
    page.wait_for("document.querySelector('#key-list .notice')")
    assert page.text("#key-list") == KEYS_OFF


@pytest.mark.long
def test_events_are_filtered_and_charts_read_by_keyboard(open_page: OpenPage) -> None:
    page = open_page()
    count = "document.querySelectorAll('.event').length"
    page.wait_for(f"{count} === 9")
    choose = "const choice = document.getElementById('{}'); choice.value = '{}'; choice.dispatchEvent(new Event('input'))"
    for name, value, left in (("event-severity", "warning", 4), ("event-node", "2", 2), ("event-words", "refused a", 1)):
        page.evaluate(f"(() => {{ {choose.format(name, value)} }})()")
        assert page.evaluate(count) == left
    assert "one event of 9" in page.text("#event-count")
    page.evaluate("document.querySelector('.plot').focus()")
    page.press("ArrowLeft")
    label = page.evaluate("document.querySelector('.plot').getAttribute('aria-label')")
    assert label.startswith("Requests, ")
    assert "writes" in label
    assert page.evaluate("document.querySelectorAll('.cursor:not([hidden])').length") == 8


@pytest.mark.long
def test_keyboard_theme_and_labels(open_page: OpenPage) -> None:
    page = open_page()
    page.press("?")
    page.wait_for("document.getElementById('dialog').open")
    assert "Search the events" in page.text("#dialog")
    page.press("Escape")
    page.wait_for("!document.getElementById('dialog').open")
    assert not is_dark(page)
    page.press("t")
    page.press("t")
    assert is_dark(page)
    page.press("3")
    assert page.evaluate("document.activeElement.id") == "events-title"
    page.press("4")
    assert page.evaluate("document.activeElement.id") == "writes-title"
    focused = (
        "(() => { const one = document.activeElement; return [one.tagName, getComputedStyle(one).outlineStyle]; })()"
    )
    for _ in range(25):
        page.press("Tab")
        tag, outline = page.evaluate(focused)
        assert tag == "BODY" or outline != "none", "who uses the keyboard sees where it is"
    nameless = """[...document.querySelectorAll('button, a, input, select, [role=img], [tabindex="0"]')].filter((one) =>
        one.checkVisibility() && !(one.innerText ?? one.textContent).trim() && !one.ariaLabel && !one.labels?.length
    ).map((one) => one.outerHTML.slice(0, 120))"""
    assert page.evaluate(nameless) == []
    landmarks = "['header', 'nav', 'main', 'h1', '[aria-live]'].filter((one) => !document.querySelector(one))"
    assert page.evaluate(landmarks) == []


@pytest.mark.long
def test_the_reference_lists_the_routes(open_page: OpenPage) -> None:
    for size in (DESKTOP, PHONE):
        page = open_page("/docs", size, settled=False)
        page.wait_for("document.querySelectorAll('.route').length > 10")
        text = page.text("#routes")
        for words in ("/v1/cluster/status", "one of pprof, svg, folded, speedscope", "this node is not the leader"):
            assert words in text
        page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
        assert '"is_leader": true' in page.text("#routes")
        assert page.overflow() == 0


@pytest.mark.long
def test_foreign_text_stays_text(open_page: OpenPage) -> None:
    """What others wrote, as Markdown and as a value, makes no element of its own and starts nothing."""
    page = open_page()
    hostile = (
        "# <img src=x onerror=alert(1)>\\n\\n[x](javascript:alert(1)) **<b>** `<i>` | a\\n\\n- <script>1</script>\\n"
    )
    made = page.evaluate(
        f"""import('/ui/markdown.js').then(({{ markdown }}) => {{
            const box = document.createElement('div');
            box.append(...markdown("{hostile}", (label) => label));
            return [box.querySelectorAll('img, script, a, b, i').length, box.textContent];
        }})"""
    )
    assert made[0] == 0
    assert "<img src=x onerror=alert(1)>" in made[1]
    key = "<img src=x onerror=alert(1)>"
    page.evaluate(f"import('/ui/keys.js').then(({{ showRecord }}) => showRecord({json.dumps(key)}))")
    page.wait_for("document.querySelector('.record h3')")
    assert page.text(".record h3") == key
    assert page.evaluate("document.querySelectorAll('.record img, .record script').length") == 0


@pytest.mark.long
def test_charts_keep_time_and_gaps(open_page: OpenPage) -> None:
    page = open_page()
    kept = page.evaluate(
        """import('/ui/model.js').then(({ addPoint }) => {
            const history = { step_ms: 2000, start_ms: 0, series: {} };
            addPoint(history, 10000, { a: 1 });
            addPoint(history, 16000, { a: 2, b: 3 });
            const gaps = JSON.stringify(history.series);
            for (let at = 1; at <= 460; at += 1) addPoint(history, 16000 + 2000 * at, { a: at });
            const full = [history.series.a.length, history.series.b.length, history.series.a.at(-1), history.start_ms];
            addPoint(history, 9_000_000_000, { a: 7 });
            return [gaps, full, JSON.stringify(history.series)];
        })"""
    )
    assert kept[0] == '{"a":[1,null,null,2],"b":[null,null,null,3]}'
    assert kept[1] == [450, 450, 460, 16_000 + 2_000 * 460 - 2_000 * 449]
    assert kept[2] == '{"a":[7],"b":[null]}'
    path = page.evaluate("import('/ui/charts.js').then(({ pathOf }) => pathOf([1, 1, null, 1], 4, 1))")
    assert path == "M0.0 1.5L150.0 1.5M445.0 1.5h5"
