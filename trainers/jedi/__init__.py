"""JeDi: joint-image diffusion, a subject from reference pictures without finetuning."""
