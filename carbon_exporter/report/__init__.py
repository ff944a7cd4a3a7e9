"""The report room: what one job used and emitted in a stretch of time, asked of a Prometheus and written down.

client ─► counters ─► course, origin, spans ─► facts ─► sections ─► markdown, html
                                                  └───► document (JSON), model_card
"""

from __future__ import annotations
