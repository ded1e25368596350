"""The hardware: the only place that says `cuda`."""
