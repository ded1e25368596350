"""Pre-training of the embedded models on sticker scenes."""
