"""OGEN: finetuning that keeps the names it is not trained on."""
