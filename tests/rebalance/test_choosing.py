"""
Of the steps that moves of one round are to take next, those come first on which the application, or all else, depends.
"""

from __future__ import annotations

import pytest

from sharding.rebalance import decided_steps, undecided_steps
from sharding.rebalance.choosing import urgency
from sharding.rebalance.phases import Phase
from sharding.rebalance.steps import Claim, Side

#: Each pair comes in this order.
PAIRS = {
    "a fence is claimed first": ((Claim(Side.SOURCE), Phase.PURGING), (undecided_steps.Decide(), Phase.FINISHING)),
    "what is closed goes on": ((decided_steps.Own(), Phase.DECIDED), (undecided_steps.Copy(), Phase.COPYING)),
    "what is closed is opened": ((undecided_steps.Unfence(), Phase.FINISHING), (undecided_steps.Copy(), Phase.COPYING)),
    "an abort opens": ((undecided_steps.Restore(), Phase.ABORTING), (undecided_steps.Begin(), Phase.PLANNED)),
    "deleting waits": ((undecided_steps.Fence(), Phase.FENCING), (undecided_steps.Clear(), Phase.ABORTING)),
    "the last one catches up": ((undecided_steps.Copy(), Phase.COPYING), (undecided_steps.Verify(), Phase.VERIFYING)),
    "none waits in the window": ((decided_steps.Announce(), Phase.FORWARDING), (decided_steps.Purge(), Phase.PURGING)),
}


@pytest.mark.parametrize(("first", "second"), PAIRS.values(), ids=PAIRS)
def test_order(first, second):
    assert urgency(*first) < urgency(*second)
