"""Flags to settings, and what to say about a flag that no setting has. No torch."""
