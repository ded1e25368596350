"""The training use-case: one loop, its optimizer, checkpoints, records and trackers; plan and verify."""
