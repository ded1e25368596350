"""Textual inversion: learn a new word; every weight of the model stays as it is."""
