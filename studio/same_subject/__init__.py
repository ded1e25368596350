"""Same-subject sets made with a text-to-image model: the S3 pipeline of JeDi (arXiv 2407.06187, section 4)."""
