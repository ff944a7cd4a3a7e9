"""A modelled cluster of GPU nodes under a week of jobs: what its exporters say, and what the rules record of it."""
