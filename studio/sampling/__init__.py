"""The sampling use-case: a request to pictures, grids of them, and checks of reference pictures."""
