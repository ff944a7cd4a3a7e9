"""The report room: what a job or runs used and emitted in a stretch of time, asked of a Prometheus.

client ─► counters ─► course, origin, spans ─► facts ─► sections ─► markdown, html
                                                  └───► document (JSON), model_card
client ─► runs ─► run_facts ─► comparison, welch ─► run_tables, run_document
"""

from __future__ import annotations
