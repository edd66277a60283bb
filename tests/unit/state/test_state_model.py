"""Random histories: the machine must answer, store and publish exactly what the plain model does."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.state_comparison import run_history
from tests.support.state_histories import Drawn
from tests.support.state_strategies import actions


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(history=actions, watched=st.booleans())
def test_random_histories_agree_with_the_model(history: list[object], watched: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        applied = run_history(Path(directory), history, watched)
    assert applied == sum(action not in ("reopen", "snapshot") for action in history)


@pytest.mark.parametrize("seed", range(20))
def test_long_random_histories_agree_with_the_model(seed: int, tmp_path: Path) -> None:
    history = Drawn(seed).history(entries=150)
    applied = run_history(tmp_path, history, watched=bool(seed % 2))
    assert applied == sum(action not in ("reopen", "snapshot") for action in history)


@pytest.mark.parametrize("seed", range(12))
def test_long_random_histories_under_limits_agree_with_the_model(seed: int, tmp_path: Path) -> None:
    assert run_history(tmp_path, Drawn(seed).limited_history(entries=150), watched=bool(seed % 2)) > 100
