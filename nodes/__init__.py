"""What lives in the field: firmware, the emulated boards that run it, and the world they stand in."""
