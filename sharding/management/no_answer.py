"""
What commands end with when a database does not answer.
"""

from __future__ import annotations

from django.core.management.base import CommandError

from sharding.migrating.survey import reason


def no_answer(error: BaseException) -> CommandError:
    """Return an error for people that says which database it was, where that was noted."""
    return CommandError("\n".join([f"A database does not answer: {reason(error)}", *getattr(error, "__notes__", ())]))
