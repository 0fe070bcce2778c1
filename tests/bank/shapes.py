"""
The shapes of the blocks whose commits are broken at every statement.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.bank.transfers import Transfer

A, B, C, D = "shard_a", "shard_b", "shard_c", "shard_d"

#: By name: what a client does one after the other, of a bank (tests.bank.conftest).
SHAPES: dict[str, Callable[[Any], list[Transfer]]] = {
    "one shard": lambda bank: [bank.transfer(A, A)],
    "two shards": lambda bank: [bank.transfer(A, B)],
    "two shards and control": lambda bank: [bank.transfer(A, B, journaled=True)],
    "a shard and control": lambda bank: [bank.transfer(A, A, journaled=True)],
    "three shards and control": lambda bank: [bank.transfer(A, B, C, journaled=True)],
    "with reads elsewhere": lambda bank: [bank.transfer(A, B, reads=(C, D))],
    "one block after the other": lambda bank: [bank.transfer(A, B), bank.transfer(B, C, journaled=True)],
    "refused by a shard": lambda bank: [bank.transfer(A, B, journaled=True, broken=True)],
}

#: What the statement that writes the decision contains.
DECISION = "INSERT INTO sharding_decision"


def decision(sent: list[str]) -> int | None:
    """Return the number of the statement that commits the decision of the first block, if it has one."""
    for number, text in enumerate(sent):
        if DECISION in text:
            # With a part of the block of its own, the control database commits both afterwards.
            own_part = sent[number + 1 : number + 2]
            return number + 1 if own_part and own_part[0].endswith(" COMMIT") else number
    return None
