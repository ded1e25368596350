"""Trained weights in and out: loading artifacts, exporting, publishing, going on from weights trained before."""
