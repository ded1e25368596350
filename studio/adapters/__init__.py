"""How weights may move: low-rank and other adapters, full finetuning; attach, strength, merge, file formats."""
