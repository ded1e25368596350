"""Custom Diffusion: a subject in the keys and values of the text, and nowhere else."""
