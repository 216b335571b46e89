"""Fuzz targets over the firmware's parsers, for libFuzzer and for a seeded driver of our own."""
