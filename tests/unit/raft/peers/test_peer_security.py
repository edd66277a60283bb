"""The handshake's rules and what the configuration makes of them: proofs, rotation, roll-out, clusters, identities."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metasrv.config.model import RaftConfig
from metasrv.model.errors import AuthenticationError, ConfigError, FrameError, PeerError
from metasrv.model.limits import (
    HELLO_SIZE_BYTES_MAX,
    IDENTITY_TEXT_CHARACTERS_MAX,
    RAFT_SECRETS_MAX,
    REFUSAL_CHARACTERS_MAX,
)
from metasrv.model.types import Endpoint
from metasrv.model.wire import pack, unpack
from metasrv.raft.peers.handshake import (
    PROTOCOL_VERSION,
    AcceptorHandshake,
    Agreement,
    DiallerHandshake,
    LocalIdentity,
    RemoteIdentity,
    Role,
    decode_refusal,
    encode_refusal,
    other_cluster_in,
)
from metasrv.raft.peers.security import PROOF_SIZE_BYTES, PeerSecurity, dialler_proof, session_keys, transcript_of
from tests.support.secret_procedure import documented_steps

OLD, NEW = b"old secret", b"new secret"
OPEN = PeerSecurity()
ROLLING_OUT = PeerSecurity(NEW, strict=False)
STRICT = PeerSecurity(NEW, strict=True)


def identity(node_id: int | None, cluster_id: str | None = "c1", incarnation: str = "") -> LocalIdentity:
    return LocalIdentity(node_id, incarnation or f"data-{node_id}", Endpoint("host", 28103), cluster_id)


def shake(
    dialler_security: PeerSecurity,
    acceptor_security: PeerSecurity,
    dialler: LocalIdentity | None = None,
    acceptor: LocalIdentity | None = None,
    role: Role = Role.PEER,
) -> tuple[Agreement, Agreement, bool]:
    """What both sides agree on, and whether the dialler was let in unproven."""
    calling = DiallerHandshake(dialler or identity(1), dialler_security, role, b"d" * 32)
    answering = AcceptorHandshake(acceptor or identity(2), acceptor_security, b"a" * 32)
    answering.proved(calling.challenged(answering.greeted(calling.hello())))
    welcome, accepted = answering.welcome()
    return calling.welcomed(welcome), accepted, answering.unproven


def test_both_sides_learn_who_is_there_and_share_keys() -> None:
    dialled, accepted, unproven = shake(STRICT, STRICT)
    assert dialled.remote == RemoteIdentity(2, "data-2", Endpoint("host", 28103), "c1")
    assert accepted.remote == RemoteIdentity(1, "data-1", Endpoint("host", 28103), "c1")
    assert dialled.keys is not None
    assert dialled.keys == accepted.keys
    assert dialled.keys.dialler != dialled.keys.acceptor
    assert not unproven
    assert accepted.role is Role.PEER


@pytest.mark.parametrize(
    ("dialler", "acceptor", "keyed", "unproven"),
    [
        (OPEN, OPEN, False, False),
        (OPEN, ROLLING_OUT, False, True),
        (ROLLING_OUT, OPEN, False, False),
        (ROLLING_OUT, ROLLING_OUT, True, False),
        (ROLLING_OUT, STRICT, True, False),
        (STRICT, ROLLING_OUT, True, False),
        (STRICT, STRICT, True, False),
    ],
)
def test_a_secret_is_rolled_out_without_a_gap(dialler: Any, acceptor: Any, keyed: Any, unproven: Any) -> None:
    dialled, accepted, let_in_unproven = shake(dialler, acceptor)
    assert (dialled.keys is not None, accepted.keys is not None, let_in_unproven) == (keyed, keyed, unproven)


def test_a_strict_node_refuses_a_caller_without_a_secret() -> None:
    with pytest.raises(
        AuthenticationError, match=r"demands the shared secret \(raft_secret\) and the caller proved none"
    ):
        shake(OPEN, STRICT)


def test_a_strict_node_does_not_talk_to_one_without_a_secret() -> None:
    with pytest.raises(AuthenticationError, match="it holds no shared secret, but raft_secret_strict demands one"):
        shake(STRICT, OPEN)


@pytest.mark.parametrize("strict", [False, True])
def test_a_wrong_secret_is_refused_strict_or_not(strict: Any) -> None:
    with pytest.raises(
        AuthenticationError, match=r"the shared secret \(raft_secret\) of this node and of the caller differ"
    ):
        shake(PeerSecurity(OLD), PeerSecurity(NEW, strict=strict))


@pytest.mark.parametrize("before", [PeerSecurity(OLD), OPEN], ids=["rotated", "adopted"])
def test_every_documented_step_to_a_new_secret_works_with_the_neighbouring_step(before: PeerSecurity) -> None:
    old = None if before.secret is None else before.secret.decode()
    procedure = documented_steps(old, NEW.decode())
    steps = [before, *(PeerSecurity.from_config(RaftConfig.model_validate(step._asdict())) for step in procedure)]
    for left, right in itertools.pairwise(steps):
        for pair in ((left, right), (right, left), (left, left), (right, right)):
            assert shake(*pair)[0].keys is not None or not any(security.demands_proof for security in pair)
    assert steps[-1].demands_proof
    with pytest.raises(AuthenticationError):
        shake(steps[0], steps[-1])


def test_nodes_talk_whichever_setting_holds_the_secret_they_have_in_common() -> None:
    settings = [(NEW, ()), (OLD, (NEW,)), (NEW, (OLD,)), (b"third", (b"fourth", NEW))]
    holders = [PeerSecurity(own, accepted) for own, accepted in settings]
    for dialler, acceptor in itertools.product(holders, repeat=2):
        dialled, accepted, unproven = shake(dialler, acceptor)
        assert dialled.keys is not None
        assert (dialled.keys, unproven) == (accepted.keys, False)
    with pytest.raises(AuthenticationError, match="differ"):
        shake(PeerSecurity(OLD, (b"third",)), STRICT)


def test_accepted_secrets_count_before_the_node_has_its_own() -> None:
    for pair in ((STRICT, PeerSecurity(None, (NEW,))), (PeerSecurity(None, (NEW,)), STRICT)):
        assert shake(*pair)[0].keys is not None


def test_proofs_of_as_many_secrets_as_a_node_may_hold_fit_a_frame() -> None:
    many = PeerSecurity(NEW, tuple(bytes([number]) for number in range(RAFT_SECRETS_MAX - 1)))
    assert len(many.prove(b"")) == RAFT_SECRETS_MAX * PROOF_SIZE_BYTES < HELLO_SIZE_BYTES_MAX
    assert shake(many, PeerSecurity(bytes([RAFT_SECRETS_MAX - 2])))[1].keys is not None


@pytest.mark.parametrize("proofs", [b"x", b"x" * 31, b"x" * 33, b"x" * HELLO_SIZE_BYTES_MAX])
def test_bytes_that_are_no_proofs_prove_nothing(proofs: bytes) -> None:
    assert STRICT.secret_behind(proofs, b"transcript") is None


def test_a_proof_does_not_fit_another_connection() -> None:
    calling = DiallerHandshake(identity(1), STRICT, Role.PEER, b"d" * 32)
    first = AcceptorHandshake(identity(2), STRICT, b"a" * 32)
    second = AcceptorHandshake(identity(2), STRICT, b"b" * 32)
    proof = calling.challenged(first.greeted(calling.hello()))
    second.greeted(calling.hello())
    with pytest.raises(AuthenticationError):
        second.proved(proof)


def test_a_dialler_s_own_proof_sent_back_is_not_taken_for_the_acceptor_s() -> None:
    calling = DiallerHandshake(identity(1), STRICT, Role.PEER, b"d" * 32)
    proof = calling.challenged(pack((PROTOCOL_VERSION, b"a" * 32, True)))
    for wrong in (proof, b"", bytes(32)):
        with pytest.raises(AuthenticationError, match="its proof of the shared secret"):
            calling.welcomed(pack((pack((2, "data-2", ("host", 1), "c1")), wrong)))


def test_a_changed_identity_voids_the_acceptor_s_proof() -> None:
    calling = DiallerHandshake(identity(1), STRICT, Role.PEER, b"d" * 32)
    answering = AcceptorHandshake(identity(2), STRICT, b"a" * 32)
    answering.proved(calling.challenged(answering.greeted(calling.hello())))
    _, proof = unpack(answering.welcome()[0])
    with pytest.raises(AuthenticationError):
        calling.welcomed(pack((pack((3, "data-3", ("host", 1), "c1")), proof)))


def test_the_keys_depend_on_everything_that_was_said() -> None:
    transcripts = [transcript_of(b"a", b"bc"), transcript_of(b"ab", b"c"), transcript_of(b"abc")]
    assert len({session_keys(NEW, transcript).dialler for transcript in transcripts}) == 3
    assert dialler_proof(NEW, transcripts[0]) != dialler_proof(OLD, transcripts[0])


@pytest.mark.parametrize(("theirs", "ours"), [(None, "c1"), ("c1", None), (None, None), ("c1", "c1")])
def test_a_node_without_a_cluster_may_talk_to_any(theirs: Any, ours: Any) -> None:
    dialled, accepted, _ = shake(OPEN, OPEN, identity(1, theirs), identity(2, ours))
    assert (dialled.remote.cluster_id, accepted.remote.cluster_id) == (ours, theirs)


def test_nodes_of_different_clusters_do_not_talk() -> None:
    with pytest.raises(AuthenticationError, match="the caller belongs to cluster c2, this node to cluster c1") as refused:
        shake(OPEN, OPEN, identity(1, "c2"), identity(2, "c1"))
    sentence = f"host:1 cannot be reached: it refused: {refused.value}"
    assert other_cluster_in(sentence, "c2") == "c1"
    assert other_cluster_in(sentence, None) is None
    assert other_cluster_in("host:1 cannot be reached: Connection refused", "c2") is None


def test_a_dialler_that_learns_of_another_cluster_turns_away_itself() -> None:
    calling = DiallerHandshake(identity(1, "c1"), OPEN, Role.PEER, b"d" * 32)
    calling.challenged(pack((PROTOCOL_VERSION, b"a" * 32, False)))
    with pytest.raises(AuthenticationError, match="it belongs to cluster c2, this node to cluster c1"):
        calling.welcomed(pack((pack((2, "data-2", ("host", 1), "c2")), b"")))
    assert other_cluster_in("it belongs to cluster c2, this node to cluster c1", "c1") == "c2"


def test_two_nodes_with_one_id_do_not_talk_and_a_node_may_ask_itself() -> None:
    for role in Role:
        with pytest.raises(AuthenticationError, match="node id 2 is in use by this node; give each node its own id"):
            shake(OPEN, OPEN, identity(2, incarnation="another"), identity(2), role)
    with pytest.raises(AuthenticationError, match="node 2 dialled itself; check its raft address"):
        shake(OPEN, OPEN, identity(2), identity(2))
    assert shake(OPEN, OPEN, identity(2), identity(2), Role.CLIENT)[1].remote.node_id == 2


def test_only_a_client_may_be_nobody() -> None:
    assert shake(OPEN, OPEN, identity(None), role=Role.CLIENT)[1].remote.node_id is None
    with pytest.raises(FrameError, match="a peer without a node id"):
        shake(OPEN, OPEN, identity(None), role=Role.PEER)


def hello(**changes: object) -> bytes:
    fields = {
        "version": PROTOCOL_VERSION,
        "role": 0,
        "node_id": 1,
        "incarnation": "data-1",
        "endpoint": ("host", 28103),
        "cluster_id": "c1",
        "nonce": b"n" * 32,
    }
    return pack(tuple((fields | changes).values()))


def greet(payload: bytes) -> None:
    AcceptorHandshake(identity(2), OPEN, b"a" * 32).greeted(payload)


@pytest.mark.parametrize(
    "changes",
    [
        {"role": 3},
        {"role": "0"},
        {"role": True},
        {"node_id": -1},
        {"node_id": "1"},
        {"node_id": True},
        {"incarnation": b"bytes"},
        {"incarnation": "x" * (IDENTITY_TEXT_CHARACTERS_MAX + 1)},
        {"incarnation": "two\nlines"},
        {"endpoint": ("host",)},
        {"endpoint": None},
        {"endpoint": ("host", 65536)},
        {"endpoint": ("h" * (IDENTITY_TEXT_CHARACTERS_MAX + 1), 1)},
        {"cluster_id": 7},
        {"nonce": b"n" * 31},
        {"nonce": "n" * 32},
        {"more": 1},
    ],
)
def test_a_hello_of_another_shape_is_refused(changes: Any) -> None:
    greet(hello())
    with pytest.raises(FrameError, match="the handshake is not understood"):
        greet(hello(**changes))


def test_texts_at_their_limit_fit_in_a_handshake_frame() -> None:
    longest = "𝄞" * IDENTITY_TEXT_CHARACTERS_MAX
    payload = hello(incarnation=longest, endpoint=(longest, 65535), cluster_id=longest, node_id=2**64 - 1)
    greet(payload)
    assert len(payload) < HELLO_SIZE_BYTES_MAX - 64


@pytest.mark.parametrize(
    ("payload", "who"),
    [
        (hello(version=PROTOCOL_VERSION + 1), f"node 1 speaks peer protocol {PROTOCOL_VERSION + 1}"),
        (hello(version=PROTOCOL_VERSION - 1), f"node 1 speaks peer protocol {PROTOCOL_VERSION - 1}"),
        (hello(version=9, node_id=None), "the caller speaks peer protocol 9"),
        (pack((9, "a shape of the future")), "the caller speaks peer protocol 9"),
        (pack((9, 0, 7, "a shape of the future")), "node 7 speaks peer protocol 9"),
        (pack((None,)), "the caller speaks peer protocol None"),
        (pack(("x" * 3000,)), "the caller speaks peer protocol 'x"),
    ],
)
def test_another_protocol_version_is_refused_with_a_sentence(payload: Any, who: Any) -> None:
    with pytest.raises(FrameError, match=f"^{who}.*, this node speaks {PROTOCOL_VERSION}; ") as caught:
        greet(payload)
    assert len(str(caught.value)) < 250


def test_a_challenge_of_another_protocol_version_is_refused_with_a_sentence() -> None:
    calling = DiallerHandshake(identity(1), OPEN, Role.PEER, b"d" * 32)
    with pytest.raises(FrameError, match=f"^it speaks peer protocol 9, this node speaks {PROTOCOL_VERSION}; "):
        calling.challenged(pack((9, "a shape of the future")))


@given(st.binary(max_size=300))
def test_random_payloads_end_a_handshake_and_nothing_else(payload: Any) -> None:
    calling = DiallerHandshake(identity(1), STRICT, Role.PEER, b"d" * 32)
    answering = AcceptorHandshake(identity(2), STRICT, b"a" * 32)
    for step in (answering.greeted, answering.proved, calling.challenged, calling.welcomed):
        with pytest.raises(PeerError):
            step(payload)


@given(st.text(max_size=2 * REFUSAL_CHARACTERS_MAX) | st.just("𝄞" * 2 * REFUSAL_CHARACTERS_MAX))
def test_a_refusal_fits_in_its_frame_and_can_be_logged(sentence: Any) -> None:
    payload = encode_refusal(sentence)
    assert len(payload) < HELLO_SIZE_BYTES_MAX - 64
    assert decode_refusal(payload).isprintable() or not sentence
    assert len(decode_refusal(payload)) <= REFUSAL_CHARACTERS_MAX


@given(st.binary(max_size=HELLO_SIZE_BYTES_MAX))
def test_a_refusal_of_anybody_is_one_printable_line(payload: Any) -> None:
    text = decode_refusal(payload)
    assert text == "" or text.isprintable()


# ----------------------------------------------------------------------------- configuration


def raft_config(**changes: object) -> SimpleNamespace:
    options: dict[str, object] = {
        "raft_secret": None,
        "raft_accepted_secrets": (),
        "raft_secret_strict": False,
        "raft_tls_ca": "",
        "raft_tls_cert": "",
        "raft_tls_key": "",
        "raft_tls_allowed_names": (),
        "raft_tls_operators": (),
    }
    return SimpleNamespace(**(options | changes))


@pytest.mark.parametrize("strict", [False, True])
def test_without_a_secret_nothing_is_demanded_strict_or_not(strict: Any) -> None:
    for secret in (None, ""):
        security = PeerSecurity.from_config(raft_config(raft_secret=secret, raft_secret_strict=strict))
        assert security == PeerSecurity(strict=strict)
        assert shake(security, security)[0].keys is None


def test_secrets_come_as_text_or_wrapped() -> None:
    wrapped = SimpleNamespace(get_secret_value=lambda: "new secret")
    expected = PeerSecurity(NEW, (OLD,), strict=True)
    for secret in ("new secret", wrapped):
        config = raft_config(raft_secret=secret, raft_accepted_secrets=["old secret", ""], raft_secret_strict=True)
        assert PeerSecurity.from_config(config) == expected


def test_half_of_the_tls_files_is_a_mistake_that_names_the_others() -> None:
    with pytest.raises(ConfigError, match="missing: raft_tls_cert, raft_tls_key"):
        PeerSecurity.from_config(raft_config(raft_tls_ca="ca.pem"))


def test_unreadable_tls_files_are_all_named_at_once(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("not a certificate")
    with pytest.raises(ConfigError) as raised:
        PeerSecurity.from_config(
            raft_config(raft_tls_ca=str(tmp_path / "none.pem"), raft_tls_cert=str(garbage), raft_tls_key=str(garbage))
        )
    assert [problem.split(":")[0] for problem in raised.value.problems] == ["raft_tls_ca", "raft_tls_cert, raft_tls_key"]


def test_secrets_are_not_in_texts() -> None:
    assert NEW.decode() not in repr(PeerSecurity(NEW, (OLD,)))
    assert OLD.decode() not in repr(PeerSecurity(NEW, (OLD,)))
    assert repr(session_keys(NEW, b"")) == "SessionKeys()"
