"""All planted defects, by name."""

from __future__ import annotations

from metasrv.testing.mutants.consensus_defects import CONSENSUS_MUTANTS
from metasrv.testing.mutants.patching import Mutant
from metasrv.testing.mutants.state_defects import STATE_MUTANTS
from metasrv.testing.mutants.storage_defects import STORAGE_MUTANTS

MUTANTS: dict[str, Mutant] = {mutant.name: mutant for mutant in (*STORAGE_MUTANTS, *CONSENSUS_MUTANTS, *STATE_MUTANTS)}
