"""Noise processes, prediction kinds, objectives, guidance and sampling steps: pure functions in the papers' symbols."""
