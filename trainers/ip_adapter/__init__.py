"""IP-Adapter: a second cross-attention that reads a picture; the model itself stays as it is."""
