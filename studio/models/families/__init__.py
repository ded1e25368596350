"""Model families, a folder each: `card.py` states the facts of the published models, `model.py` is the `Family`."""
