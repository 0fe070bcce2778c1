"""What the demo shows, one idea a chapter; the code that a reader is shown is the code that runs."""

from __future__ import annotations

from demo.chapters import bad_keys, fan_outs, pages, refusals, routing, writing

CHAPTERS = (routing, bad_keys, writing, fan_outs, pages, refusals)
