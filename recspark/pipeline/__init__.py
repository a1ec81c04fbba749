"""The stages put together: what the jobs run, and the only place that composes stages."""
