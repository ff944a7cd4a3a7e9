"""Writes blocks as Prometheus keeps them, so that a benchmark may ask a week that nobody waited for."""
