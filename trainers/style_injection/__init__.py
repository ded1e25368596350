"""Style injection: draw one picture's structure in another picture's style; nothing is trained."""
