"""
System checks of sharded models, E021 to E031, of reference models, E050 and E051, of lookups, E060 to W062, and of
what databases do on delete, E063: what cannot work on several servers, each with its remedy.

Those of MODEL_CHECKS look at the code alone. Those of DATABASE_CHECKS ask the databases that `check --database` names.
"""

from __future__ import annotations

from sharding.model_checks.collations import check_collations
from sharding.model_checks.keys import check_keys
from sharding.model_checks.lookups import check_built, check_lookups
from sharding.model_checks.on_delete import check_on_delete
from sharding.model_checks.reference import check_reference_keys, check_reference_parents
from sharding.model_checks.relations import check_inheritance, check_many_to_many, check_references
from sharding.model_checks.uniqueness import check_ids, check_unique_constraints

MODEL_CHECKS = (
    check_keys,
    check_ids,
    check_unique_constraints,
    check_many_to_many,
    check_inheritance,
    check_references,
    check_reference_keys,
    check_reference_parents,
    check_lookups,
    check_on_delete,
)
DATABASE_CHECKS = (check_collations, check_built)
