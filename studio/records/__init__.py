"""What lies on disk: run folders, recipes in pictures, trained folders, and where a name leads. No torch."""
