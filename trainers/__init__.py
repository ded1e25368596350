"""Methods, one folder each: `config.py` (settings and card, no torch), `trainer.py` or `edit.py` (the science)."""
