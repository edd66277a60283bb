"""Passwords of handshakes: how often one is computed, how many wait, and how guesses are slowed."""

from __future__ import annotations

import asyncio

import pytest

from metasrv.grpc_api.guessing import FORGOTTEN_SECONDS, FREE_GUESSES, WAIT_SECONDS_MAX, Attempt, Guesses, origin_of
from metasrv.grpc_api.passwords import PasswordChecker
from metasrv.model.errors import OverloadedError
from metasrv.model.limits import GUESSERS_REMEMBERED_MAX, PASSWORD_CHECKS_WAITING_MAX, PASSWORDS_REMEMBERED_MAX
from metasrv.model.passwords import hash_password
from metasrv.testing.hand_clock import HandClock

PEER = "ipv4:10.0.0.1:5555"


class Tries:
    """Tries passwords at one checker, as a client at one address or another."""

    def __init__(self) -> None:
        self.checker = PasswordChecker()
        self.clock = HandClock()
        self._guesses = Guesses(self.clock.monotonic)

    async def is_right(self, password: str, expected: str, username: str = "root", host: str = "10.0.0.1") -> bool:
        return await self.checker.is_right(password, expected, Attempt(self._guesses, f"ipv4:{host}:1", username))


@pytest.fixture
def tries() -> Tries:
    return Tries()


class SlowComparisons:
    """Stands in for the slow comparison: every password is wrong but `sesame`, and each ends when it is let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun: list[str] = []
        self.at_once = self.at_once_max = 0
        self._may_end = asyncio.Semaphore(0)
        monkeypatch.setattr("metasrv.grpc_api.passwords.asyncio.to_thread", self._compare)

    async def _compare(self, _compares: object, password: str, _expected: str) -> bool:
        self.begun.append(password)
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        await self._may_end.acquire()
        self.at_once -= 1
        return password == "sesame"

    async def end(self, count: int) -> None:
        """Let so many comparisons end, one after the other."""
        for _ in range(count):
            self._may_end.release()
            for _ in range(6):
                await asyncio.sleep(0)


async def test_a_good_password_is_computed_once_and_a_wrong_one_each_time(tries: Tries) -> None:
    stored = hash_password("sesame")
    assert [await tries.is_right("sesame", stored) for _ in range(3)] == [True] * 3
    assert tries.checker.computed == 1
    assert [await tries.is_right("wrong", stored) for _ in range(2)] == [False] * 2
    assert tries.checker.computed == 3
    assert not await tries.is_right("sesame", hash_password("another"))


async def test_a_plain_password_is_compared_without_computing(tries: Tries) -> None:
    assert await tries.is_right("sesame", "sesame")
    assert not await tries.is_right("sesame ", "sesame")
    assert tries.checker.computed == 0


async def test_handshakes_of_one_moment_compute_once(tries: Tries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metasrv.grpc_api.passwords.is_password", lambda _password, _expected: True)
    stored = "$scrypt$stored"
    answers = await asyncio.gather(*(tries.is_right("sesame", stored) for _ in range(PASSWORD_CHECKS_WAITING_MAX)))
    assert all(answers)
    assert tries.checker.computed == 1


async def test_only_so_many_wait(tries: Tries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metasrv.grpc_api.passwords.is_password", lambda _password, _expected: False)
    asked = PASSWORD_CHECKS_WAITING_MAX + 2  # one is compared at once
    answers = await asyncio.gather(
        *(tries.is_right("guess", "$scrypt$stored", f"user-{number}") for number in range(asked)),
        return_exceptions=True,
    )
    assert answers[:-1] == [False] * (asked - 1)
    assert isinstance(answers[-1], OverloadedError)
    assert not await tries.is_right("again", "$scrypt$stored")


async def test_only_so_many_are_remembered(tries: Tries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metasrv.grpc_api.passwords.is_password", lambda _password, _expected: True)
    for number in range(PASSWORDS_REMEMBERED_MAX):
        await tries.is_right(f"{number}", "$scrypt$stored")
    await tries.is_right("0", "$scrypt$stored")
    assert tries.checker.computed == PASSWORDS_REMEMBERED_MAX
    await tries.is_right("one more", "$scrypt$stored")
    await tries.is_right("0", "$scrypt$stored")
    assert tries.checker.computed == PASSWORDS_REMEMBERED_MAX + 2


async def test_a_login_waits_for_one_comparison_of_a_flood(tries: Tries, monkeypatch: pytest.MonkeyPatch) -> None:
    comparisons = SlowComparisons(monkeypatch)
    flood = [asyncio.create_task(tries.is_right(f"{n}", "$scrypt$stored", f"user-{n}")) for n in range(65)]
    await asyncio.sleep(0)
    login = asyncio.create_task(tries.is_right("sesame", "$scrypt$stored", "reader", host="10.0.0.2"))
    await asyncio.sleep(0)
    await comparisons.end(3)
    assert login.done(), comparisons.begun
    assert login.result()
    assert comparisons.begun[2] == "sesame"
    await comparisons.end(62)
    ended = await asyncio.gather(*flood, return_exceptions=True)
    assert sum(isinstance(answer, OverloadedError) for answer in ended) == 1, "the flood made room itself"


async def test_guesses_of_one_moment_are_slowed_as_those_in_a_row(tries: Tries, monkeypatch: pytest.MonkeyPatch) -> None:
    comparisons = SlowComparisons(monkeypatch)
    guesses = [asyncio.create_task(tries.is_right(f"{number}", "$scrypt$stored")) for number in range(40)]
    await asyncio.sleep(0)
    await comparisons.end(40)
    answers = await asyncio.gather(*guesses, return_exceptions=True)
    assert comparisons.begun == [f"{number}" for number in range(FREE_GUESSES)]
    assert answers[:FREE_GUESSES] == [False] * FREE_GUESSES
    assert all(isinstance(answer, OverloadedError) for answer in answers[FREE_GUESSES:])


async def test_a_client_that_leaves_frees_no_thread_and_its_guess_counts(
    tries: Tries, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparisons = SlowComparisons(monkeypatch)
    for number in range(FREE_GUESSES):
        guess = asyncio.create_task(tries.is_right(f"{number}", "$scrypt$stored"))
        other = asyncio.create_task(tries.is_right("guess", "$scrypt$stored", f"user-{number}"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        guess.cancel()
        await asyncio.sleep(0)
        assert guess.cancelled()
        await comparisons.end(2)
        assert other.result() is False
    assert comparisons.at_once_max == 1, "the thread of the one that left goes on"
    with pytest.raises(OverloadedError, match="wrong passwords"):
        await tries.is_right("sesame", "$scrypt$stored")


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
