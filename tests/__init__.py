"""Tests mirror the tree: one file a module, and the contract that every method keeps."""
