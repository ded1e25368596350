"""What a method and what it talks to promise each other: trainer, edit, request, condition, batch, source."""
