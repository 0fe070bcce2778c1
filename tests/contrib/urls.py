"""URLs of these tests."""

from __future__ import annotations

from django.urls import include, path
from rest_framework.routers import DefaultRouter

from tests.contrib import views
from tests.contrib.sites import site
from tests.shop.models import Customer, Device, Entry, Member, Note, Tag

router = DefaultRouter()
router.register("orders", views.OrderViewSet, "order")
router.register("offset", views.OffsetViewSet, "offset")
router.register("cursors", views.CursorViewSet, "cursors")
router.register("frameworks", views.FrameworksCursorViewSet, "frameworks")
router.register(r"tenants/(?P<tenant>\d+)/orders", views.TenantOrderViewSet, "tenant-order")
router.register(r"tenants/(?P<tenant>\d+)/lines", views.TenantLineViewSet, "tenant-line")
router.register(r"tenants/(?P<tenant>\d+)/customers", views.TenantCustomerViewSet, "tenant-customer")
router.register("customers", views.every(Customer, views.CustomerSerializer), "customer")
router.register("members", views.every(Member, views.MemberSerializer), "member")
router.register("devices", views.every(Device, views.DeviceSerializer), "device")
router.register("entries", views.every(Entry, views.EntrySerializer), "entry")
router.register("tags", views.every(Tag, views.TagSerializer), "tag")


class NoteViewSet(views.Open):
    queryset = Note.objects.order_by("pk")
    serializer_class = views.NoteSerializer


router.register("notes", NoteViewSet, "note")

urlpatterns = [
    path("admin/", site.urls),
    path("api/", include(router.urls)),
    path("customers/", views.CustomerList.as_view()),
    path("customers/add/", views.CustomerCreate.as_view()),
    path("customers/<uuid:pk>/", views.CustomerDetail.as_view()),
    path("customers/<uuid:pk>/change/", views.CustomerUpdate.as_view()),
    path("customers/<uuid:pk>/delete/", views.CustomerDelete.as_view()),
    path("orders/add/", views.OrderCreate.as_view()),
]
