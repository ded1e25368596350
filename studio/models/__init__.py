"""Model families behind a few verbs: encode, embed, predict, decode, attending."""
