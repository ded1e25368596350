"""The process that owns a device: its jobs, pictures from live runs, chores and comparisons."""
