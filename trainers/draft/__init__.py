"""DRaFT and its family: back-propagation of a reward through the last sampler steps."""
