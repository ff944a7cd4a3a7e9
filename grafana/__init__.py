"""Dashboards for Grafana as data: boards made of panels, built into plain JSON by `python grafana/build.py`."""
