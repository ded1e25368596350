"""COLA: a multimodal adapter that tells which attribute belongs to which object."""
