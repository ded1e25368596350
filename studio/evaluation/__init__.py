"""The evaluations beside a subject's: classifiers, dual encoders, and DreamBench's protocol."""
