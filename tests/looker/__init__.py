"""A method that looks at references, small enough to test the way that these take."""
