"""Benchmarks: our steps against what people use today, on the same model, batch and machine."""
