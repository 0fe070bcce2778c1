"""Fill the shop: two hundred tenants of some orders each, and a large one."""

from __future__ import annotations

import django

django.setup()

from tests.shop.models import Customer, Order  # noqa: E402

#: The tenant that has more than all others of its bucket.
LARGE = 42

if __name__ == "__main__":
    customers = [Customer(tenant_id=tenant, name=f"Customer of {tenant}") for tenant in range(1, 201)]
    Customer.objects.bulk_create(customers)
    Order.objects.bulk_create(
        Order(tenant_id=each.tenant_id, customer=each, total=number)
        for each in customers
        for number in range(2000 if each.tenant_id == LARGE else 20)
    )
