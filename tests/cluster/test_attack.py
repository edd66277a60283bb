"""`make attack ARGS=--secured` in short: what an attacker is given is good, and the load beside it is answered right."""

from __future__ import annotations

from verification.attack.__main__ import attack_once
from verification.attack.catalog import SECURED_ATTACKS
from verification.attack.settings import SecuredCluster


async def test_a_secured_cluster_stands_while_it_is_attacked() -> None:
    async with SecuredCluster(3) as cluster:
        await cluster.prepare()
        for name in ("wrong passwords, many users", "bombs, as a client"):
            result = await attack_once(cluster, name, SECURED_ATTACKS[name], seconds=1)
            assert result.outcome.wrong == []
            assert result.outcome.errors == []
            assert result.outcome.operations > 50
            assert int(result.connections) >= 1
