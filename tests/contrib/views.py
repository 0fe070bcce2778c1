"""
The views of these tests: REST, and Django's generic ones.
"""

from __future__ import annotations

from django.views.generic import CreateView, DeleteView, DetailView, ListView, UpdateView
from rest_framework import filters, pagination, permissions, viewsets

from aggregator import fan_out
from aggregator.contrib.rest_framework import KeysetCursorPagination, ShardedModelSerializer
from tests.shop.models import Customer, Device, Entry, Line, Member, Note, Order, Tag


class OrderSerializer(ShardedModelSerializer):
    class Meta:
        model = Order
        exclude = ["tags"]


class CustomerSerializer(ShardedModelSerializer):
    class Meta:
        model = Customer
        fields = "__all__"


class CustomerOfTenantSerializer(ShardedModelSerializer):
    class Meta:
        model = Customer
        fields = ["id", "name", "email"]


class LineSerializer(ShardedModelSerializer):
    class Meta:
        model = Line
        fields = ["id", "order", "product", "amount"]


class MemberSerializer(ShardedModelSerializer):
    class Meta:
        model = Member
        fields = "__all__"


class DeviceSerializer(ShardedModelSerializer):
    class Meta:
        model = Device
        fields = "__all__"


class EntrySerializer(ShardedModelSerializer):
    class Meta:
        model = Entry
        fields = "__all__"


class NoteSerializer(ShardedModelSerializer):
    class Meta:
        model = Note
        fields = "__all__"


class TagSerializer(ShardedModelSerializer):
    class Meta:
        model = Tag
        fields = "__all__"


class Numbered(pagination.PageNumberPagination):
    page_size = 4


class Offset(pagination.LimitOffsetPagination):
    default_limit = 4


class Cursors(KeysetCursorPagination):
    page_size = 2
    page_size_query_param = "size"
    ordering = "-total"


class FrameworksCursors(pagination.CursorPagination):
    page_size = 4
    ordering = "-total"


class Open(viewsets.ModelViewSet):
    permission_classes = [permissions.AllowAny]
    authentication_classes = []


class OrderViewSet(Open):
    """All orders, on pages by number."""

    queryset = fan_out(Order.objects.order_by("-total"))
    serializer_class = OrderSerializer
    pagination_class = Numbered
    filter_backends = [filters.SearchFilter, filters.OrderingFilter]
    search_fields = ["status", "customer__name", "lines__product"]
    ordering_fields = ["total", "status"]


class OffsetViewSet(OrderViewSet):
    pagination_class = Offset


class CursorViewSet(OrderViewSet):
    pagination_class = Cursors
    filter_backends = [filters.OrderingFilter]


class FrameworksCursorViewSet(OrderViewSet):
    pagination_class = FrameworksCursors
    filter_backends = []


class TenantOrderViewSet(Open):
    """The orders of one tenant, who is named by the path."""

    serializer_class = OrderSerializer

    def get_queryset(self):
        return Order.objects.for_key(self.kwargs["tenant"]).order_by("total")


class TenantLineViewSet(Open):
    """Its serializer does not know the key, which the view gives."""

    serializer_class = LineSerializer

    def get_queryset(self):
        return Line.objects.filter(tenant_id=self.kwargs["tenant"]).order_by("id")

    def perform_create(self, serializer):
        serializer.save(tenant_id=self.kwargs["tenant"])


class TenantCustomerViewSet(TenantLineViewSet):
    serializer_class = CustomerOfTenantSerializer

    def get_queryset(self):
        return Customer.objects.filter(tenant_id=self.kwargs["tenant"]).order_by("name")


def every(model, serializer) -> type[Open]:
    """Return the views of all rows of a model, on one page."""
    queryset = fan_out(model.objects.order_by("pk"))
    return type(f"{model.__name__}ViewSet", (Open,), {"queryset": queryset, "serializer_class": serializer})


class CustomerList(ListView):
    queryset = fan_out(Customer.objects.order_by("name"))
    paginate_by = 2


class CustomerDetail(DetailView):
    model = Customer


class CustomerCreate(CreateView):
    model = Customer
    fields = ["tenant_id", "name", "email", "region", "joined"]
    success_url = "/customers/"


class CustomerUpdate(UpdateView):
    model = Customer
    fields = ["tenant_id", "name", "email", "joined"]
    success_url = "/customers/"


class CustomerDelete(DeleteView):
    model = Customer
    success_url = "/customers/"


class OrderCreate(CreateView):
    model = Order
    fields = ["tenant_id", "customer", "status", "total"]
    success_url = "/customers/"

    def get_form(self, form_class=None):
        form = super().get_form(form_class)
        form.fields["customer"].queryset = fan_out(Customer.objects.order_by("name"))
        return form
