"""How other tools spell the names of layers."""
