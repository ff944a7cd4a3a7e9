"""The catalogue as JSON: what `/api/v1/metadata` answers, and the page says of each metric."""

from __future__ import annotations

import msgspec

from carbon_exporter.publish.catalogue import CATALOGUE, JobLabel, label_names

__all__ = ["encode_metadata"]


def encode_metadata(job_label: JobLabel) -> bytes:
    """A list of objects with the keys of `carbon-exporter metrics --format=json`; the job is labelled `job_label`."""
    return msgspec.json.encode(
        [
            {
                "name": metric.name,
                "type": metric.type,
                "unit": metric.unit,
                "labels": label_names(metric, job_label),
                "help": metric.help,
            }
            for metric in CATALOGUE
        ]
    )
