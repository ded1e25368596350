"""Methods: their cards, where they are found, and what their settings rule out. No torch."""
