"""Scores of pictures: likeness, prompt fit, background, diversity, distance between sets. Higher is better."""
