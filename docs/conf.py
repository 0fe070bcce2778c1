"""Sphinx' settings; ``make check`` builds with every warning an error."""

from __future__ import annotations

project = "django-shardkit"
author = "the django-shardkit developers"
copyright = "2026, the django-shardkit developers"

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
# Fragments are collected into the release notes; each is no page of its own.
exclude_patterns = ["_build", "changes/[!R]*"]
html_theme = "furo"
html_title = project
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
