"""The catalogue as plain values: what `/api/v1/metadata` and `carbon-exporter metrics --format=json` say."""

from __future__ import annotations

from typing import Any

import msgspec

from carbon_exporter.publish.catalogue import CATALOGUE, JobLabel, label_names

__all__ = ["described", "encode_metadata"]


def described(job_label: JobLabel) -> list[dict[str, Any]]:
    """Each metric; the job is labelled `job_label`."""
    return [
        {
            "name": metric.name,
            "type": metric.type,
            "unit": metric.unit,
            "labels": label_names(metric, job_label),
            "help": metric.help,
        }
        for metric in CATALOGUE
    ]


def encode_metadata(job_label: JobLabel) -> bytes:
    """The same as JSON."""
    return msgspec.json.encode(described(job_label))
