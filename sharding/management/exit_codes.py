"""
Exit codes of commands, beside 0 and Django's 1 and 2.
"""

from __future__ import annotations

#: Of a program that was stopped by Ctrl-C, as shells have it.
INTERRUPTED = 130
