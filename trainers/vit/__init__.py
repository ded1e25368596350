"""Finetuning of image classifiers: whole, head only, adapters, bottlenecks, chosen blocks."""
