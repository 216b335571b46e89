"""The world the sensors stand in: weather, soil and crop (AquaCrop), sensor errors, valves."""
