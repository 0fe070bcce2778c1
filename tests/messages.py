"""Whole messages for ``pytest.raises(match=...)``, which by itself is content with a part of one."""

from __future__ import annotations

import re


def whole(message: str) -> str:
    """Return the pattern that matches ``message`` and nothing more."""
    return rf"\A{re.escape(message)}\Z"
