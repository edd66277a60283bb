"""The routes about members: what they show, what they refuse and why, what they ask of whom."""

from __future__ import annotations

import asyncio
import json
import logging
import tomllib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from metasrv.admin.app import create_app
from metasrv.admin.schemas import MemberChangeSchema, MembersSchema
from metasrv.config.load import load_config
from metasrv.config.model import Config, RaftConfig
from metasrv.consensus import JoinRequest, Standing, TransferResult
from metasrv.model.errors import ChangeInProgressError, InvalidRequestError, UnknownOutcomeError
from metasrv.model.summary import CheckResult, SummaryAnswer, SummaryQuestion
from metasrv.model.types import Endpoint, Member, Membership, PeerProgress, RaftStatus
from metasrv.node.members import Members
from metasrv.node.own_summary import OwnSummary
from metasrv.state.machine import StateMachine
from metasrv.testing.fake_node import FakeMembers, fake_context, leader_status, sample_node, sample_status

HEADERS = {"X-Metasrv-Action": "test"}
MEMBERS = "/v1/cluster/members"


def healthy(status: RaftStatus) -> RaftStatus:
    """The sample, with every other node connected."""
    return replace(status, peers=tuple(peer._replace(connected=True) for peer in status.peers))


def with_learner(status: RaftStatus, node_id: int = 4) -> RaftStatus:
    node = sample_node(node_id)
    membership = Membership(status.membership.voters, {node_id: Member(node.endpoint, "learner's")})
    peers = (*status.peers, PeerProgress(node_id, None, 5, True, learner_for_ms=61_000))
    return replace(status, membership=membership, nodes={**status.nodes, node_id: node}, peers=peers)


class Admin:
    """The admin API of one node, and the members that it asks."""

    def __init__(self, tmp_path: Path, **settings: Any) -> None:
        self.machine = StateMachine.open(str(tmp_path / "state.db"))
        raft = RaftConfig(id=1, raft_dir=str(tmp_path), raft_secret="planted-secret", heartbeat_interval=200)  # type: ignore[arg-type]
        config = Config(raft_config=raft, **settings)
        self.context, self.consensus = fake_context(self.machine, config, healthy(leader_status()))
        self.others = FakeMembers(self.consensus)
        own = OwnSummary(self.context).own
        self.context.members = Members(self.consensus, self.others, self.context.clock, own)
        transport = httpx.ASGITransport(create_app(self.context))
        self.client = httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=HEADERS)

    async def view(self) -> dict[str, Any]:
        answer = await self.client.get(MEMBERS)
        assert answer.status_code == 200, answer.text
        MembersSchema.model_validate(answer.json())
        found: dict[str, Any] = answer.json()
        return found

    async def done(self, method: str, path: str, **given: Any) -> dict[str, Any]:
        answer = await self.client.request(method, MEMBERS + path, **given)
        assert answer.status_code == 200, answer.text
        MemberChangeSchema.model_validate(answer.json())
        found: dict[str, Any] = answer.json()
        return found

    async def refused(self, code: int, method: str, path: str, **given: Any) -> str:
        answer = await self.client.request(method, MEMBERS + path, **given)
        assert (answer.status_code, answer.headers["content-type"]) == (code, "application/problem+json"), answer.text
        found: str = answer.json()["detail"]
        return found


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    made = Admin(tmp_path)
    yield made
    await made.client.aclose()
    made.machine.close()


# ----------------------------------------------------------------------------- looking


async def test_every_member_is_asked_and_shown(admin: Admin) -> None:
    admin.consensus.current = with_learner(admin.consensus.current)
    view = await admin.view()
    assert (view["asked"], view["leader"], view["cluster_id"]) == (1, 1, "c0ffee")
    assert [member["role"] for member in view["members"]] == ["leader", "voter", "voter", "learner"]
    assert [member["votes"] for member in view["members"]] == [True, True, True, False]
    assert [member["lag"] for member in view["members"]] == [0, 2, 3, 4]
    assert view["members"][3]["learner_for_ms"] == 61_000
    assert view["members"][1]["certificates"] == {"grpc": 1_795_000_000}
    assert (view["voters"], view["answering"], view["majority"], view["failure_tolerance"]) == (3, 3, 2, 1)
    assert view["failure_tolerance_text"] == "3 of 3 voters answer, 2 are needed: one more failure is tolerated"


async def test_a_silent_member_is_shown_with_the_reason(admin: Admin) -> None:
    admin.consensus.current = leader_status()  # node 3 is not connected
    view = await admin.view()
    silent = view["members"][2]
    assert (silent["reachable"], silent["ready"], silent["version"]) == (False, None, None)
    assert silent["error"] == "node 3 did not answer within 1000 ms"
    assert view["failure_tolerance_text"] == "2 of 3 voters answer, 2 are needed: one more failure stops the cluster"


async def test_many_readers_share_what_was_asked_after_they_came(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    summary = admin.others.summary

    async def counted(target: int, question: SummaryQuestion, timeout_ms: int) -> SummaryAnswer:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return await summary(target, question, timeout_ms)

    monkeypatch.setattr(admin.others, "summary", counted)
    views = await asyncio.gather(*(admin.context.members.look() for _ in range(50)))
    assert asked == 2 * 2, "the first reader's question to both others, and one for all who came meanwhile"
    assert all(view is views[1] for view in views[1:])
    assert await admin.context.members.look() is not views[1]


async def test_a_member_of_an_older_release_answers_although_it_does_not_know_the_question(admin: Admin) -> None:
    admin.others.failures[2] = InvalidRequestError("a peer asked for 'summary', which this version does not know")
    view = await admin.view()
    assert (view["answering"], view["members"][1]["reachable"], view["members"][1]["version"]) == (3, True, None)


async def test_a_member_of_release_0_2_0_started_about_when_its_uptime_says(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = admin.others.summary

    async def earlier(target: int, question: SummaryQuestion, timeout_ms: int) -> SummaryAnswer:
        told = await answer(target, question, timeout_ms)
        return told._replace(summary=told.summary._replace(started_at_ms=None, certificates=()))

    monkeypatch.setattr(admin.others, "summary", earlier)
    second = (await admin.view())["members"][1]
    assert abs(second["started_at_ms"] - (admin.context.clock.wall_ms() - 60_000)) < 10_000
    assert second["certificates"] == {}


async def test_a_voter_that_lacks_much_of_the_log_is_no_replacement(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = admin.others.summary

    async def behind(target: int, question: SummaryQuestion, timeout_ms: int) -> SummaryAnswer:
        told = await answer(target, question, timeout_ms)
        return told._replace(summary=told.summary._replace(applied_index=7)) if target == 3 else told

    monkeypatch.setattr(admin.others, "summary", behind)
    assert (await admin.view())["failure_tolerance_text"] == (
        "3 of 3 voters answer, 2 are needed: one more failure stops the cluster"
    )


# ----------------------------------------------------------------------------- adding


async def test_an_addition_answers_with_a_configuration_that_starts(admin: Admin, tmp_path: Path) -> None:
    answer = await admin.done("POST", "", json={"raft_address": "10.0.0.4:28104", "raft_dir": "/data"})
    assert (answer["id"], answer["changed"][:7]) == (4, "nothing")
    assert "4 voters tolerate no more failures than 3 voters" in answer["next_step"]
    text = answer["configuration"]
    raft = tomllib.loads(text)["raft_config"]
    assert (raft["id"], raft["raft_api_port"], raft["raft_dir"], raft["heartbeat_interval"]) == (4, 28104, "/data", 200)
    assert raft["join"] == ["localhost:28103", "localhost:28104", "localhost:28105"]
    assert "planted-secret" not in text
    assert "METASRV_RAFT_SECRET" in text
    file = tmp_path / "node.toml"
    file.write_text(text)
    assert load_config(str(file), {"METASRV_RAFT_SECRET": "x"}, {}).config.raft_config.raft_advertise_host == "10.0.0.4"
    assert admin.consensus.asked == admin.others.asked == []


@pytest.mark.parametrize(
    ("own", "listens"),
    [("127.0.0.1:9191", "127.0.0.1:9191"), ("0.0.0.0:9291", "0.0.0.0:9291"), ("10.0.0.1:9191", "10.0.0.4:9191")],
)
async def test_a_new_node_is_as_open_to_clients_as_the_one_that_was_asked(admin: Admin, own: str, listens: str) -> None:
    admin.context.config = admin.context.config.model_copy(update={"grpc_api_address": own})
    answer = await admin.done("POST", "", json={"raft_address": "10.0.0.4:28104"})
    written = tomllib.loads(answer["configuration"])
    assert (written["grpc_api_address"], written["grpc_api_advertise_host"]) == (listens, "10.0.0.4")
    assert (written["admin_api_address"], written["raft_config"]["raft_listen_host"]) == ("127.0.0.1:28101", "0.0.0.0")


async def test_an_addition_that_cannot_work_is_refused_with_the_reason(admin: Admin) -> None:
    free = "10.0.0.9:28109"
    assert "node 3 is a member already" in await admin.refused(409, "POST", "", json={"id": 3, "raft_address": free})
    assert "the raft address of node 2" in await admin.refused(409, "POST", "", json={"raft_address": "localhost:28104"})
    endpoint = Endpoint.parse(free)
    admin.others.standings[endpoint] = Standing(7, None, False)
    assert "runs node 7, not node 4" in await admin.refused(409, "POST", "", json={"raft_address": free})
    admin.others.standings[endpoint] = Standing(4, "other", False)
    assert "node 4 of another cluster, other" in await admin.refused(409, "POST", "", json={"raft_address": free})
    admin.others.standings[endpoint] = Standing(4, None, False)
    assert (await admin.done("POST", "", json={"raft_address": free, "learner": True}))["id"] == 4
    admin.consensus.follow(None)
    assert "no leader is known" in await admin.refused(500, "POST", "", json={"raft_address": free})


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"id":-1,"raft_address":"h:1"}', b'{"port":1}', b'{"raft_address":"h"}', b"{}",
             b'{"raft_address":"h:0"}', b'{"id":"4","raft_address":"h:1"}', b'{"id":9223372036854775808}'],
)  # fmt: skip
async def test_a_body_that_is_no_member_is_refused(admin: Admin, body: bytes) -> None:
    assert await admin.refused(400, "POST", "", content=body)


# ----------------------------------------------------------------------------- removing


async def test_a_follower_is_removed_and_its_next_step_is_named(admin: Admin, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "metasrv.audit"):
        answer = await admin.done("DELETE", "/3")
    assert [asked[:2] for asked in admin.consensus.asked] == [("leave", 3)]
    assert answer["changed"] == "node 3 is no longer a member"
    assert answer["failure_tolerance_text"] == "2 of 2 voters answer, 2 are needed: one more failure stops the cluster"
    assert "stop node 3" in answer["next_step"]
    lines = [json.loads(record.message) for record in caplog.records]
    assert lines[0]["member_change"] == {"change": "remove", "id": 3}
    assert (lines[1]["method"], lines[1]["path"], lines[1]["result"]) == ("DELETE", f"{MEMBERS}/3", "done")


async def test_a_follower_that_is_asked_has_the_leader_do_it(admin: Admin) -> None:
    admin.consensus.current = healthy(sample_status())
    await admin.done("DELETE", "/3")
    assert admin.others.asked == [("leave", 2, 3)]
    assert admin.consensus.asked == []


async def test_a_leader_hands_over_before_it_is_removed(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    async def transfer(to_id: int | None) -> TransferResult:
        admin.consensus.follow(to_id)
        return TransferResult(1, to_id or 0, [1, 2, 3])

    monkeypatch.setattr(admin.consensus, "transfer_leadership", transfer)
    await admin.done("DELETE", "/1")
    assert admin.others.asked == [("leave", 2, 1)], "to node 2, which has applied most"
    admin.others.asked.clear()
    admin.consensus.current = healthy(sample_status())  # node 1 follows node 2
    await admin.done("DELETE", "/2")
    assert admin.others.asked == [("transfer", 2, 1)]
    assert [asked[:2] for asked in admin.consensus.asked] == [("leave", 2)]


async def test_leadership_goes_to_a_node_that_is_ready(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    answer, given = admin.others.summary, []

    async def summary(target: int, question: SummaryQuestion, timeout_ms: int) -> SummaryAnswer:
        told = await answer(target, question, timeout_ms)
        drained = CheckResult("draining", False, False, "an operator drained this node")
        return told._replace(summary=told.summary._replace(checks=(drained,))) if target == 2 else told

    async def transfer(to_id: int | None) -> TransferResult:
        given.append(to_id)
        admin.consensus.follow(to_id)
        return TransferResult(1, to_id or 0, [1, 2, 3])

    monkeypatch.setattr(admin.others, "summary", summary)
    monkeypatch.setattr(admin.consensus, "transfer_leadership", transfer)
    await admin.done("DELETE", "/1")
    assert given == [3], "node 2 has applied more, and is drained"


async def test_a_loss_that_would_stop_the_cluster_is_refused_unless_forced(admin: Admin) -> None:
    admin.consensus.current = leader_status()  # node 3 is silent
    sentence = await admin.refused(409, "DELETE", "/2")
    assert "1 of 2 voters answer, 2 are needed: writes are refused. Silent: node 3." in sentence
    assert admin.consensus.asked == []
    await admin.done("DELETE", "/3")
    await admin.done("DELETE", "/2?force=true")
    assert [asked[:2] for asked in admin.consensus.asked] == [("leave", 3), ("leave", 2)]


async def test_the_last_voter_stays_also_when_forced(admin: Admin) -> None:
    alone = Membership({1: admin.consensus.current.membership.voters[1]})
    admin.consensus.change(membership=alone, peers=())
    for path in ("/1", "/1?force=true"):
        assert "the last voter; a cluster cannot lose its last member" in await admin.refused(409, "DELETE", path)
    assert admin.consensus.asked == []


async def test_who_is_no_member_cannot_be_removed_promoted_or_replaced(admin: Admin) -> None:
    sentence = "node 9 is no member; the members are 1, 2, 3"
    for method, path in (("DELETE", "/9"), ("POST", "/9/promote"), ("POST", "/9/replace")):
        assert await admin.refused(404, method, path) == sentence
        assert "is not the id of a node" in await admin.refused(400, method, path.replace("9", "-1"))


@pytest.mark.virtual_time
async def test_another_change_is_waited_for_and_an_unknown_outcome_is_told(admin: Admin) -> None:
    admin.consensus.failure = UnknownOutcomeError("it may be committed")
    assert await admin.refused(500, "DELETE", "/3") == "it may be committed"
    assert len(admin.consensus.asked) == 1
    admin.consensus.failure = ChangeInProgressError()

    async def leave(node_id: int, timeout_ms: int) -> None:
        admin.consensus.asked.append(("leave", node_id, timeout_ms))
        if len(admin.consensus.asked) < 4:
            raise ChangeInProgressError

    admin.consensus.leave = leave  # type: ignore[method-assign]
    await admin.done("DELETE", "/3")
    assert len(admin.consensus.asked) == 4


# ----------------------------------------------------------------------------- promoting and replacing


async def test_a_learner_gets_its_vote_with_the_directory_that_it_has(admin: Admin) -> None:
    admin.consensus.current = with_learner(admin.consensus.current)
    answer = await admin.done("POST", "/4/promote")
    (asked,) = admin.consensus.asked
    assert asked[1] == JoinRequest(sample_node(4), "learner's", False)
    assert answer["changed"] == "node 4 votes from now on"
    assert "take `learner = true` out of the configuration of node 4" in answer["next_step"]
    assert answer["failure_tolerance_text"] == "4 of 4 voters answer, 3 are needed: one more failure is tolerated"
    assert (await admin.done("POST", "/2/promote"))["changed"] == "node 2 votes already: nothing was changed"
    admin.others.failures[4] = UnknownOutcomeError("nothing")
    assert "node 4 does not answer (nothing)" in await admin.refused(409, "POST", "/4/promote")


async def test_only_a_silent_member_is_replaced(admin: Admin) -> None:
    assert "node 3 answers: add the new node under another id first" in await admin.refused(409, "POST", "/3/replace")
    admin.consensus.current = leader_status()
    answer = await admin.done("POST", "/3/replace")
    raft = tomllib.loads(answer["configuration"])["raft_config"]
    assert (answer["id"], raft["id"], raft["raft_api_port"], raft["join"]) == (
        3, 3, 28105, ["localhost:28103", "localhost:28104"]
    )  # fmt: skip
    assert "make sure that the old node 3 is stopped" in answer["next_step"]
    other = await admin.done("POST", "/3/replace", json={"id": 5, "raft_address": "h:7"})
    assert (other["id"], tomllib.loads(other["configuration"])["raft_config"]["raft_api_port"]) == (5, 7)
    assert "node 2 is a member already" in await admin.refused(409, "POST", "/3/replace", json={"id": 2})


# ----------------------------------------------------------------------------- the guard


async def test_changes_need_the_header_and_no_web_page_makes_them(admin: Admin) -> None:
    for method, path in (("POST", ""), ("DELETE", "/3"), ("POST", "/3/promote"), ("POST", "/3/replace")):
        bare = await admin.client.request(method, MEMBERS + path, headers={"X-Metasrv-Action": ""})
        del admin.client.headers["X-Metasrv-Action"]
        without = await admin.client.request(method, MEMBERS + path)
        admin.client.headers.update(HEADERS)
        assert bare.status_code != 403
        assert (without.status_code, without.json()["detail"][:8]) == (403, f"a {method} to"[:8])
        page = await admin.client.request(method, MEMBERS + path, headers={"Origin": "http://evil.example"})
        assert page.status_code == 403
    admin.consensus.asked.clear()
    for path, allowed in (("", "GET, HEAD, POST"), ("/3", "DELETE"), ("/3/promote", "POST"), ("/3/replace", "POST")):
        answer = await admin.client.patch(MEMBERS + path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


async def test_reading_takes_a_small_scope_and_changing_the_large_one(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("see:read:0123456789abcdef\nops:operate:fedcba9876543210\n")
    made = Admin(tmp_path, admin_tokens_file=str(tokens), admin_open_routes=("probes",), admin_get_actions=False)
    see, ops = ({"Authorization": f"Bearer {token}"} for token in ("0123456789abcdef", "fedcba9876543210"))
    try:
        assert (await made.client.get(MEMBERS)).status_code == 401
        assert (await made.client.get(MEMBERS, headers=see)).status_code == 200
        assert (await made.client.delete(f"{MEMBERS}/3", headers=see)).status_code == 403
        assert (await made.client.delete(f"{MEMBERS}/3", headers=ops)).status_code == 200
    finally:
        await made.client.aclose()
        made.machine.close()
