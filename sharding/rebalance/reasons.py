"""
What a plan leaves as it is, and why: sentences for whoever decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from sharding.rebalance.load import exact
from sharding.rebalance.standing import Standing

#: Shards that are spoken of one by one.
SHOWN = 3


def sentences(standing: Standing, moves: int) -> Iterator[str]:
    """Yield what is to be said of the shards after a number of moves."""
    threshold = exact(standing.request.threshold)
    if standing.deviation() <= threshold:
        if not moves:
            yield f"Each shard's load is within {_percent(threshold)} of its fair share: there is nothing to do."
        return
    if not moves:
        yield "No move is worth its bucket, although the shards are uneven."
    shares = {alias: standing.share_of(alias) for alias in standing.weights}
    full = sorted(
        (alias for alias in shares if shares[alias] - 1 > threshold), key=lambda alias: (-shares[alias], alias)
    )
    for alias in full[:SHOWN]:
        yield f"{alias} stays at {float(shares[alias]):.2f} times its fair share: {_why(standing, alias)}."
    if len(full) > SHOWN:
        yield f"{len(full) - SHOWN:,} more shards stay above their fair share."
    if not full:
        low = min(shares, key=lambda alias: (shares[alias], alias))
        yield (
            f"{low} stays at {float(shares[low]):.2f} times its fair share: it may not receive more, or no bucket is "
            f"small enough to be worth a move."
        )


def _why(standing: Standing, alias: str) -> str:
    held = [bucket for bucket, owner in enumerate(standing.owners) if owner == alias]
    largest = max(held, key=lambda bucket: (standing.loads[bucket], -bucket))
    part = standing.share_of(alias) * standing.loads[largest] / standing.held[alias]
    if part > Fraction(1, 2):
        return f"bucket {largest} alone is {float(part):.2f} times that, and a bucket is never divided"
    pinned = sum(bucket in standing.request.pins for bucket in held)
    if pinned:
        return f"{pinned:,} of its buckets are pinned, and the others find no better place"
    return "no shard may receive more, or no bucket is small enough to be worth a move"


def _percent(part: Fraction) -> str:
    return f"{float(part * 100):g} %"
