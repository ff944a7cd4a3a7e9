"""Integrations: the SDK inside other people's programs, one file each, loaded only by who imports that file.

    from carbon_exporter.integrations.lightning import CarbonCallback
    from carbon_exporter.integrations.transformers import CarbonCallback
    from carbon_exporter.integrations.keras import CarbonCallback
    from carbon_exporter.integrations.accelerate import CarbonTracker

A file whose framework is not there says so when it is imported, with what to install (`missing.py`).
"""
