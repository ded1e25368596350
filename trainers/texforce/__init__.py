"""TexForce: reinforcement learning of the text encoder."""
