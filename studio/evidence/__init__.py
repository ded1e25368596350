"""Tables that anybody can make again: recipes of cells, run once each, to means with their spread."""
