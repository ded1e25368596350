"""What a person reads afterwards: HTML files that need nothing beside them. No torch."""
