"""URLs of these tests."""

from __future__ import annotations

from django.urls import path

from tests.contrib.sites import site

urlpatterns = [path("admin/", site.urls)]
