"""ARREST: adversarial finetuning that keeps the clean representations."""
