"""Shared attention: pictures that look at one leader while they are drawn, and so share its style."""
