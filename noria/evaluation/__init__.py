"""What the irrigation intelligence is worth, measured in a world it was not trained in."""
