"""Files to batches: layouts, reading, checks, caches, and streams that can start anywhere."""
