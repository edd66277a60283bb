"""Passwords of handshakes: how often one is computed, how many wait, and how guesses are slowed."""

from __future__ import annotations

import asyncio

import pytest

from metasrv.grpc_api.guessing import FORGOTTEN_SECONDS, FREE_GUESSES, WAIT_SECONDS_MAX, Guesses, origin_of
from metasrv.grpc_api.passwords import PasswordChecker
from metasrv.model.errors import OverloadedError
from metasrv.model.limits import GUESSERS_REMEMBERED_MAX, PASSWORD_CHECKS_WAITING_MAX, PASSWORDS_REMEMBERED_MAX
from metasrv.model.passwords import hash_password
from metasrv.testing.hand_clock import HandClock

PEER = "ipv4:10.0.0.1:5555"


async def test_a_good_password_is_computed_once_and_a_wrong_one_each_time() -> None:
    checker = PasswordChecker()
    stored = hash_password("sesame")
    assert [await checker.is_right("sesame", stored) for _ in range(3)] == [True] * 3
    assert checker.computed == 1
    assert [await checker.is_right("wrong", stored) for _ in range(2)] == [False] * 2
    assert checker.computed == 3
    assert not await checker.is_right("sesame", hash_password("another"))


async def test_a_plain_password_is_compared_without_computing() -> None:
    checker = PasswordChecker()
    assert await checker.is_right("sesame", "sesame")
    assert not await checker.is_right("sesame ", "sesame")
    assert checker.computed == 0


async def test_handshakes_of_one_moment_compute_once(monkeypatch: pytest.MonkeyPatch) -> None:
    checker = PasswordChecker()
    monkeypatch.setattr("metasrv.grpc_api.passwords.is_password", lambda _password, _expected: True)
    stored = "$scrypt$stored"
    answers = await asyncio.gather(*(checker.is_right("sesame", stored) for _ in range(PASSWORD_CHECKS_WAITING_MAX)))
    assert all(answers)
    assert checker.computed == 1


async def test_only_so_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    checker = PasswordChecker()
    monkeypatch.setattr("metasrv.grpc_api.passwords.is_password", lambda _password, _expected: False)
    answers = await asyncio.gather(
        *(checker.is_right(f"{number}", "$scrypt$stored") for number in range(PASSWORD_CHECKS_WAITING_MAX + 1)),
        return_exceptions=True,
    )
    assert answers[:-1] == [False] * PASSWORD_CHECKS_WAITING_MAX
    assert isinstance(answers[-1], OverloadedError)
    assert not await checker.is_right("again", "$scrypt$stored")


async def test_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    checker = PasswordChecker()
    monkeypatch.setattr("metasrv.grpc_api.passwords.is_password", lambda _password, _expected: True)
    for number in range(PASSWORDS_REMEMBERED_MAX):
        await checker.is_right(f"{number}", "$scrypt$stored")
    await checker.is_right("0", "$scrypt$stored")
    assert checker.computed == PASSWORDS_REMEMBERED_MAX
    await checker.is_right("one more", "$scrypt$stored")
    await checker.is_right("0", "$scrypt$stored")
    assert checker.computed == PASSWORDS_REMEMBERED_MAX + 2


# ----------------------------------------------------------------------------- guesses


def refused(guesses: Guesses, peer: str = PEER, username: str = "root") -> bool:
    try:
        guesses.check(peer, username)
    except OverloadedError:
        return True
    return False


def test_guesses_wait_longer_and_longer() -> None:
    clock = HandClock()
    guesses = Guesses(clock.monotonic)
    for _ in range(FREE_GUESSES - 1):
        guesses.wrong(PEER, "root")
        assert not refused(guesses)
    waits = []
    for _ in range(8):
        guesses.wrong(PEER, "root")
        waited = 0.0
        while refused(guesses):
            clock.advance(0.5)
            waited += 0.5
        waits.append(waited)
    assert waits == [0.5, 1, 2, 4, 8, WAIT_SECONDS_MAX, WAIT_SECONDS_MAX, WAIT_SECONDS_MAX]


def test_others_do_not_wait() -> None:
    guesses = Guesses(HandClock().monotonic)
    for _ in range(FREE_GUESSES):
        guesses.wrong(PEER, "root")
    assert refused(guesses, "ipv4:10.0.0.1:7")
    assert not refused(guesses, "ipv4:10.0.0.2:5555")
    assert not refused(guesses, username="reader")


def test_a_right_password_and_time_end_the_count() -> None:
    clock = HandClock()
    guesses = Guesses(clock.monotonic)
    for by_time in (False, True):
        for _ in range(FREE_GUESSES):
            guesses.wrong(PEER, "root")
        if by_time:
            clock.advance(FORGOTTEN_SECONDS + 1)
        else:
            guesses.right(PEER, "root")
        guesses.wrong(PEER, "root")
        assert not refused(guesses)
        guesses.right(PEER, "root")


def test_only_so_many_are_counted() -> None:
    guesses = Guesses(HandClock().monotonic)
    for _ in range(FREE_GUESSES):
        guesses.wrong(PEER, "root")
    for number in range(GUESSERS_REMEMBERED_MAX - 1):
        guesses.wrong(f"ipv4:10.1.{number // 256}.{number % 256}:1", "root")
    assert refused(guesses)
    guesses.wrong("ipv4:10.2.0.0:1", "root")
    assert not refused(guesses), "the oldest is forgotten"


@pytest.mark.parametrize(
    ("peer", "origin"),
    [
        ("ipv4:10.0.0.1:5555", "10.0.0.1"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:5555", "2001:db8:1:2::"),
        ("ipv6:[2001:db8:1:2:ffff::1]:7", "2001:db8:1:2::"),
        ("ipv6:[::ffff:10.0.0.1]:7", "10.0.0.1"),
        ("ipv6:[fe80::1%eth0]:7", "fe80::"),
        ("unix:/socket", "unix:/socket"),
        ("", ""),
    ],
)
def test_one_machine_counts_as_one(peer: str, origin: str) -> None:
    assert origin_of(peer) == origin
