"""
Whatever applications write while buckets move, what was acknowledged is there in the end: once, and nothing else.
"""

from __future__ import annotations

import pytest

from tests.layouts import CLUSTER, SHOP_ONLY
from tests.moving.ledger import ending
from tests.moving.ledger.campaign import PROCESSES, Campaign
from tests.moving.scenes import fenced_cluster

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)


def run(form, **given):
    with fenced_cluster(*CLUSTER, FENCE=form, MAP_TTL=0.25, MOVE_WAIT=10.0):
        campaign = Campaign(**given)
        campaign.run()
        print(campaign.told())
        ending.assert_books(campaign.expected)
        ending.assert_tidy()
    return campaign


def test_nothing_is_lost_or_doubled():
    campaign = run("row", seconds=7.0, longest=0.5, processes=(*PROCESSES[:2], PROCESSES[-1]))
    assert campaign.switches >= 4


@pytest.mark.slow
@pytest.mark.parametrize("form", ["row", "statement"])
def test_nothing_is_lost_or_doubled_in_a_minute(form):
    run(form, seconds=60.0, seed=1)


@pytest.mark.long
def test_nothing_is_lost_or_doubled_in_half_an_hour():
    run("row", seconds=1800.0, seed=2)
