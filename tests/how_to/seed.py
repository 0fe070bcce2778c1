"""
Fill the shop: two hundred tenants of some orders each.

    python -m tests.how_to.seed [LARGE]      the tenant LARGE has a hundred times as many
"""

from __future__ import annotations

import sys

import django

django.setup()

from tests.shop.models import Customer, Order  # noqa: E402

if __name__ == "__main__":
    large = int(sys.argv[1]) if sys.argv[1:] else None
    customers = [Customer(tenant_id=tenant, name=f"Customer of {tenant}") for tenant in range(1, 201)]
    Customer.objects.bulk_create(customers)
    Order.objects.bulk_create(
        Order(tenant_id=each.tenant_id, customer=each, total=number)
        for each in customers
        for number in range(2000 if each.tenant_id == large else 20)
    )
