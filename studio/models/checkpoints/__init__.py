"""Checkpoints as people have them: one file, a folder, the hub, or parts of each, to the networks of a pipeline."""
