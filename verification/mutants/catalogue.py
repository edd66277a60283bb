"""All planted defects, by name."""

from __future__ import annotations

from verification.mutants.address_defects import ADDRESS_MUTANTS
from verification.mutants.consensus_defects import CONSENSUS_MUTANTS
from verification.mutants.copy_defects import COPY_MUTANTS
from verification.mutants.patching import Mutant
from verification.mutants.state_defects import STATE_MUTANTS
from verification.mutants.storage_defects import STORAGE_MUTANTS
from verification.mutants.wire_defects import WIRE_MUTANTS

MUTANTS: dict[str, Mutant] = {
    mutant.name: mutant
    for mutant in (*STORAGE_MUTANTS, *CONSENSUS_MUTANTS, *STATE_MUTANTS, *WIRE_MUTANTS, *ADDRESS_MUTANTS, *COPY_MUTANTS)
}
