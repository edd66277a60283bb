"""Every route of the admin API: codes, bodies, content types; bad queries are never an error of their own."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metasrv.admin.actions import ACTION_PATHS
from metasrv.admin.app import create_app
from metasrv.admin.compression import accepts_gzip
from metasrv.admin.problem import problem
from metasrv.admin.schemas import FeaturesSchema, NodeSchema, StatusSchema, TransferSchema
from metasrv.config.model import Config, RaftConfig
from metasrv.model.commands import SetFeature
from metasrv.model.errors import NoLeaderError, NotLeaderError, StoppingError, UnknownOutcomeError
from metasrv.model.types import PeerProgress
from metasrv.node.context import NodeContext
from metasrv.state.machine import StateMachine
from metasrv.testing.fake_consensus import FakeConsensus
from metasrv.testing.fake_node import fake_context, leader_status, sample_status

JSON = "application/json; charset=utf-8"
TEXT = "text/plain; charset=utf-8"
LEGACY_STATUS_KEYS = [
    "id",
    "endpoint",
    "db_size",
    "state",
    "is_leader",
    "current_term",
    "last_log_index",
    "last_applied",
    "leader",
    "voters",
    "non_voters",
    "last_seq",
]
DATABEND_STATUS_KEYS = {
    "binary_version",
    "data_version",
    "snapshot_key_count",
    "snapshot_key_space_stat",
    "raft_log",
    "snapshot_last_log_id",
    "purged",
    "replication",
}
ROUTES = [
    "/v1/health",
    "/v1/config",
    "/v1/cluster/nodes",
    "/v1/cluster/status",
    "/v1/cluster/state",
    "/v1/metrics",
    "/metrics",
    "/v1/ctrl/trigger_snapshot",
    "/v1/ctrl/trigger_transfer_leader",
    "/v1/features/list",
    "/v1/features/set",
    "/debug/home",
    "/livez",
    "/readyz",
]


class Admin:
    """The application, its client and the node behind it."""

    def __init__(self, context: NodeContext, consensus: FakeConsensus) -> None:
        self.context = context
        self.consensus = consensus
        transport = httpx.ASGITransport(create_app(context), raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://localhost")

    async def get(self, url: str) -> httpx.Response:
        return await self.client.get(url)


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    machine = StateMachine.open(str(tmp_path / "state.db"))
    raft = RaftConfig(id=1, raft_advertise_host="localhost", raft_api_port=28103, raft_dir=str(tmp_path), single=True)
    made = Admin(*fake_context(machine, Config(raft_config=raft), sample_status()))
    yield made
    await made.client.aclose()
    machine.close()


async def test_health_always_passes(admin: Admin) -> None:
    admin.consensus.current = sample_status(leader_id=None, has_quorum=False, leader_contact_ms=None)
    answer = await admin.get("/v1/health")
    assert (answer.status_code, answer.text, answer.headers["content-type"]) == (200, '{"status":"pass"}', JSON)


async def test_nodes_have_the_keys_of_both_generations(admin: Admin) -> None:
    answer = await admin.get("/v1/cluster/nodes")
    assert (answer.status_code, answer.headers["content-type"]) == (200, JSON)
    assert [node["name"] for node in answer.json()] == ["1", "2", "3"]
    assert answer.json()[0] == {
        "name": "1",
        "endpoint": {"addr": "localhost", "port": 28103},
        "grpc_api_addr": "0.0.0.0:9191",
        "grpc_api_advertise_address": "127.0.0.1:9191",
    }
    assert [list(node)[:3] for node in answer.json()] == [["name", "endpoint", "grpc_api_addr"]] * 3
    for node in answer.json():
        NodeSchema.model_validate(node)


@pytest.mark.parametrize("path", ["/v1/cluster/status", "/v1/cluster/state"])
async def test_status_begins_with_the_legacy_fields_in_their_order(admin: Admin, path: str) -> None:
    answer = await admin.get(path)
    view = answer.json()
    assert answer.status_code == 200
    assert list(view)[: len(LEGACY_STATUS_KEYS)] == LEGACY_STATUS_KEYS
    assert set(view) >= DATABEND_STATUS_KEYS
    assert (view["id"], view["endpoint"], view["db_size"]) == (1, "localhost:28103", 100_000)
    assert (view["state"], view["is_leader"], view["current_term"], view["last_log_index"]) == (
        "Follower",
        False,
        67,
        53067,
    )
    assert view["last_applied"] == {"term": 67, "index": 53067, "leader_id": {"term": 67, "node_id": 2}}
    assert (view["leader"]["name"], len(view["voters"]), view["non_voters"], view["last_seq"]) == ("2", 3, [], 60665)
    assert view["replication"] is None
    StatusSchema.model_validate(view)


async def test_status_of_the_leader_tells_how_far_every_peer_is(admin: Admin) -> None:
    admin.consensus.current = leader_status()
    view = (await admin.get("/v1/cluster/status")).json()
    assert (view["state"], view["is_leader"], view["failure_tolerance"]) == ("Leader", True, 0)
    assert list(view["replication"]) == ["1", "2", "3"]
    assert (view["replication"]["2"]["index"], view["replication"]["3"]) == (53067, None)
    assert [(peer["id"], peer["connected"], peer["lag"]) for peer in view["peers"]] == [(2, True, 0), (3, False, None)]
    StatusSchema.model_validate(view)


async def test_a_silent_member_with_an_open_connection_is_lost_in_the_status(admin: Admin) -> None:
    here = leader_status().last_log_id
    silent = PeerProgress(3, here, 45_000, True)
    admin.consensus.current = leader_status(peers=(PeerProgress(2, here, 3, True), silent))
    assert (await admin.get("/v1/cluster/status")).json()["failure_tolerance"] == 0
    admin.consensus.current = sample_status()
    assert (await admin.get("/v1/cluster/status")).json()["failure_tolerance"] is None


async def test_status_without_a_leader_or_a_snapshot(admin: Admin) -> None:
    snapshot = admin.consensus.current.snapshot._replace(last_log_id=None, key_count=0, expire_count=0)
    admin.consensus.current = sample_status(leader_id=None, purged=None, snapshot=snapshot, cluster_id=None)
    view = (await admin.get("/v1/cluster/status")).json()
    assert (view["leader"], view["purged"], view["snapshot_last_log_id"], view["snapshot_key_count"]) == (
        None,
        None,
        None,
        0,
    )
    assert "snapshot_key_space_stat" not in view
    StatusSchema.model_validate(view)


@pytest.mark.parametrize(("path", "what"), [("/v1/cluster/nodes", "nodes"), ("/v1/cluster/status", "status")])
async def test_a_stopped_node_answers_500_with_a_bare_text(admin: Admin, path: str, what: str) -> None:
    admin.consensus.status_failure = StoppingError()
    answer = await admin.get(path)
    assert answer.status_code == 500
    assert answer.text == f"Failed to get {what}: MetaNodeStopped: this node is shutting down"


async def test_config_is_a_dump_without_secrets(tmp_path: Path) -> None:
    secrets = {"admin_token": "hush-admin", "raft_config": {"raft_dir": str(tmp_path), "raft_secret": "hush-raft"}}
    config = Config.model_validate(secrets, strict=False)
    machine = StateMachine.open(str(tmp_path / "state.db"))
    admin = Admin(*fake_context(machine, config, sample_status()))
    answer = await admin.get("/v1/config")
    machine.close()
    assert (answer.status_code, answer.headers["content-type"]) == (200, TEXT)
    assert "hush" not in answer.text
    assert answer.text.startswith('Config {\n    admin_api_address: "127.0.0.1:28101",\n')
    assert '    admin_token: "***",\n' in answer.text
    assert "    raft_config: {\n        id: 0,\n" in answer.text


async def test_metrics_under_both_paths(admin: Admin) -> None:
    for path in ("/v1/metrics", "/metrics"):
        answer = await admin.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, TEXT)
        assert "\nmetasrv_server_leader_changes 3\n" in answer.text
        assert 'metasrv_healthcheck{type="readyz",name="leader"} 1\n' in answer.text


# ----------------------------------------------------------------------------- control


async def test_trigger_snapshot_answers_null_on_any_node(admin: Admin) -> None:
    answer = await admin.get("/v1/ctrl/trigger_snapshot")
    assert (answer.status_code, answer.text, answer.headers["content-type"]) == (200, "null", JSON)
    assert admin.consensus.asked == [("trigger_snapshot",)]


async def test_trigger_snapshot_fails_with_500(admin: Admin) -> None:
    admin.consensus.failure = StoppingError()
    answer = await admin.get("/v1/ctrl/trigger_snapshot")
    assert (answer.status_code, answer.text) == (500, "MetaNodeStopped: this node is shutting down")


@pytest.mark.parametrize(
    ("query", "to"),
    [
        ("", None),
        ("?to=3", 3),
        ("?to=99", 99),
        ("?to=18446744073709551615", 2**64 - 1),
        ("?to=18446744073709551616", None),
        ("?to=", None),
        ("?to=-1", None),
        ("?to=x", None),
        ("?to=2&to=3", None),
        ("?to=2&unknown=1", 2),
    ],
)
async def test_transfer_takes_its_query_as_a_unit(admin: Admin, query: str, to: int | None) -> None:
    admin.consensus.current = leader_status()
    answer = await admin.get(f"/v1/ctrl/trigger_transfer_leader{query}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, JSON)
    assert answer.json() == {"from": 1, "to": 2 if to is None else to, "voter_ids": [1, 2, 3]}
    assert list(answer.json()) == ["from", "to", "voter_ids"]
    assert admin.consensus.asked == [("transfer_leadership", to)]
    TransferSchema.model_validate(answer.json())


@pytest.mark.parametrize(("leader_id", "shown"), [(2, "Some(2)"), (None, "None")])
async def test_transfer_off_the_leader_is_404_in_four_lines(admin: Admin, leader_id: int | None, shown: str) -> None:
    admin.consensus.current = sample_status(leader_id=leader_id)
    answer = await admin.get("/v1/ctrl/trigger_transfer_leader")
    assert answer.status_code == 404
    assert answer.text.split("\n") == [
        "This node is not leader, can not transfer leadership",
        "id=1",
        f"current_leader={shown}",
        "voter_ids=[1, 2, 3]",
    ]


async def test_features_are_listed_in_fixed_order(admin: Admin) -> None:
    answer = await admin.get("/v1/features/list")
    assert answer.json() == {"features": ["dummy", "dummy_feature2", "users", "migration", "write-limits"], "enabled": []}
    assert list(answer.json()) == ["features", "enabled"]
    FeaturesSchema.model_validate(answer.json())


async def test_a_feature_is_set_on_the_leader(admin: Admin) -> None:
    admin.consensus.current = leader_status()
    answer = await admin.get("/v1/features/set?feature=dummy&enable=true")
    assert (answer.status_code, answer.json()["enabled"]) == (200, ["dummy"])
    answer = await admin.get("/v1/features/set?enable=false&feature=dummy")
    assert (answer.status_code, answer.json()["enabled"]) == (200, [])
    assert admin.consensus.asked == [
        ("propose", SetFeature("dummy", True), 10_000),
        ("propose", SetFeature("dummy", False), 10_000),
    ]


@pytest.mark.parametrize(
    "query",
    ["", "?feature=dummy", "?enable=true", "?feature=dummy&enable=1", "?feature=other&enable=true", "?feature=&enable="],
)
@pytest.mark.parametrize("status", [leader_status(), sample_status()], ids=["leader", "follower"])
async def test_a_bad_feature_query_is_400_before_anything_else(admin: Admin, query: str, status: Any) -> None:
    admin.consensus.current = status
    answer = await admin.get(f"/v1/features/set{query}")
    assert (answer.status_code, answer.text) == (400, "'feature' and 'enable' query parameters are required")
    assert admin.consensus.asked == []


async def test_a_feature_is_not_set_off_the_leader(admin: Admin) -> None:
    for status, failure in ((sample_status(), None), (leader_status(), NotLeaderError(2))):
        admin.consensus.current, admin.consensus.failure = status, failure
        answer = await admin.get("/v1/features/set?feature=dummy&enable=true")
        assert answer.status_code == 404
        assert "\n" not in answer.text
        assert f"id=1 current_leader=Some({status.leader_id})" in answer.text


DUMMIES = frozenset({"dummy", "dummy_feature2"})


@pytest.mark.parametrize(
    ("knowing", "reason"),
    [
        ({2: DUMMIES}, "the release of node 2 does not know it;"),
        ({3: DUMMIES, 2: frozenset()}, "the release of nodes 2, 3 does not know it;"),
        ({3: None}, "node 3 could not be asked;"),
        ({2: DUMMIES, 3: None}, "the release of node 2 does not know it and node 3 could not be asked;"),
    ],
)
async def test_a_feature_stays_off_while_a_member_may_not_know_it(admin: Admin, knowing: Any, reason: str) -> None:
    admin.consensus.current, admin.consensus.knowing = leader_status(), knowing
    answer = await admin.get("/v1/features/set?feature=users&enable=true")
    assert (answer.status_code, admin.consensus.asked) == (409, [])
    assert answer.text.startswith(f"the feature users stays off: {reason}")
    assert "force=true" in answer.text
    answer = await admin.get("/v1/features/set?feature=users&enable=true&force=false")
    assert (answer.status_code, admin.consensus.asked) == (409, [])
    answer = await admin.get("/v1/features/set?feature=users&enable=true&force=true")
    assert (answer.status_code, answer.json()["enabled"]) == (200, ["users"])
    answer = await admin.get("/v1/features/set?feature=users&enable=false")
    assert (answer.status_code, answer.json()["enabled"]) == (200, []), "it can always be turned off"


@pytest.mark.parametrize("failure", [UnknownOutcomeError("the entry may be committed"), NoLeaderError()])
async def test_other_failures_of_a_feature_are_500(admin: Admin, failure: Exception) -> None:
    admin.consensus.current, admin.consensus.failure = leader_status(), failure
    answer = await admin.get("/v1/features/set?feature=dummy&enable=true")
    assert (answer.status_code, answer.text) == (500, str(failure))


# ----------------------------------------------------------------------------- rules for all routes


@pytest.mark.parametrize("path", [path for path in ROUTES if path.startswith(("/v1", "/debug"))])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_other_methods_are_405_with_a_bare_text(admin: Admin, path: str, method: str) -> None:
    answer = await admin.client.request(method, path)
    takes_post = path.partition("?")[0] in ACTION_PATHS
    if method == "POST" and takes_post:
        assert answer.status_code == 403, "without the header that an action needs"
    else:
        assert (answer.status_code, answer.text) == (405, "method not allowed")
        assert answer.headers["allow"] == ("GET, HEAD, POST" if takes_post else "GET, HEAD")
    assert admin.consensus.asked == []


@pytest.mark.parametrize("path", [*ROUTES, "/livez/loop", "/openapi.json", "/v1/made-up"])
async def test_head_answers_every_get_route_as_get_does_without_a_body(admin: Admin, path: str) -> None:
    admin.consensus.current = leader_status()
    whole, head = await admin.get(path), await admin.client.head(path)
    assert (head.status_code, head.content) == (whole.status_code, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]
    if "metrics" not in path:  # which counts the request
        assert head.headers["content-length"] == whole.headers["content-length"]
    assert len(whole.content) > 0


async def test_head_is_counted_as_what_it_is(admin: Admin) -> None:
    await admin.client.head("/v1/health")
    await admin.client.head("/readyz/leader")
    assert admin.context.metrics.work.admin_requests.values == {
        ("/v1/health", "HEAD", "200"): 1,
        ("/readyz/{check}", "HEAD", "200"): 1,
    }


async def test_head_of_a_route_that_changes_something_does_what_get_does(admin: Admin) -> None:
    await admin.client.head("/v1/ctrl/trigger_snapshot")
    assert admin.consensus.asked == [("trigger_snapshot",)]


@pytest.mark.parametrize("path", ["/v1/metrics", "/metrics", "/v1/cluster/status", "/v1/cluster/state"])
async def test_metrics_and_status_are_compressed_when_asked(admin: Admin, path: str) -> None:
    async with admin.client.stream("GET", path, headers={"Accept-Encoding": "gzip"}) as answer:
        raw = b"".join([piece async for piece in answer.aiter_raw()])
    assert (answer.headers["content-encoding"], answer.headers["vary"]) == ("gzip", "Accept-Encoding")
    assert answer.headers["content-length"] == str(len(raw))
    plain = await admin.client.get(path, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.headers["vary"] == "Accept-Encoding"
    assert plain.headers["content-type"] == answer.headers["content-type"]
    assert len(raw) < len(plain.content)
    assert gzip.decompress(raw)[:100] == plain.content[:100]


async def test_other_answers_are_never_compressed(admin: Admin) -> None:
    for path in ("/v1/health", "/v1/config", "/debug/home", "/openapi.json"):
        answer = await admin.client.get(path, headers={"Accept-Encoding": "gzip"})
        assert "content-encoding" not in answer.headers


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("x-gzip", True),
        ("*", True),
        ("*;q=0, gzip", True),
        ("gzip;q=0", False),
        ("gzip; q=0.0, *", False),
        ("gzip;q=x", False),
        ("identity", False),
        ("br", False),
        ("", False),
        (",;,", False),
    ],
)
def test_whether_a_caller_accepts_gzip(header: str, expected: bool) -> None:
    assert accepts_gzip(header) == expected


@pytest.mark.parametrize(
    "path", ["/nowhere", "/v1", "/v1/health/", "/v1/kv", "/v1/cluster", "/docs/", "/v1/ctrl/block_dump_snapshot"]
)
async def test_unknown_paths_are_404_with_a_bare_text(admin: Admin, path: str) -> None:
    answer = await admin.get(path)
    assert (answer.status_code, answer.text, answer.headers["content-type"]) == (404, "not found", TEXT)


async def test_an_unforeseen_fault_is_500_with_a_bare_text(admin: Admin) -> None:
    admin.consensus.failure = ZeroDivisionError("a planted fault")
    answer = await admin.get("/v1/ctrl/trigger_snapshot")
    assert (answer.status_code, answer.text) == (500, "internal error: ZeroDivisionError: a planted fault")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(ROUTES),
    query=st.one_of(
        st.text(max_size=40).map(quote),
        st.text("&=%+;#?tofeaturenb0123456789-", max_size=60).map(lambda text: text.replace("#", "")),
        st.lists(
            st.tuples(
                st.sampled_from(["to", "feature", "enable", "verbose", "exclude"]),
                st.sampled_from(["1", "-1", "", "true", "dummy", "9" * 50, "%ff%fe", "٣", "1_0", " 1", "leader"]),
            ),
            max_size=4,
        ).map(lambda pairs: "&".join(f"{name}={quote(text, safe='%')}" for name, text in pairs)),
    ),
)
async def test_no_query_is_ever_422_or_500(admin: Admin, path: str, query: str) -> None:
    admin.consensus.current = leader_status()
    admin.context.loop_beat_at = admin.context.clock.monotonic()  # nobody else does here, however long the examples take
    answer = await admin.client.get(f"{path}?{query}")
    assert answer.status_code in (200, 400)
    assert answer.status_code == 200 or path == "/v1/features/set"


async def test_the_description_names_every_route(admin: Admin) -> None:
    description = (await admin.get("/openapi.json")).json()
    assert set(description["paths"]) >= set(ROUTES)
    operations = [operation["operationId"] for path in description["paths"].values() for operation in path.values()]
    assert len(operations) == len(set(operations))
    for path in description["paths"].values():
        for operation in path.values():
            assert "422" not in operation["responses"]


@pytest.mark.parametrize(
    ("status_code", "title"), [(404, "Not Found"), (413, "Content Too Large"), (422, "Unprocessable Content")]
)
def test_the_title_of_a_problem_is_the_same_with_every_python(status_code: int, title: str) -> None:
    assert json.loads(bytes(problem(status_code, "why").body))["title"] == title
