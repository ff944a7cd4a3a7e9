"""The SDK: what a script's own work costs, block by block, as span attributes and metrics."""
