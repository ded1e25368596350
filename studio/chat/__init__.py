"""What methods for chat models with pictures share: conversations as examples, what moves, the loss, answers, files."""
