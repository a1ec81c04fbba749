"""Metrics, baselines and their comparison on one snapshot."""
