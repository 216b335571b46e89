"""Cortex-M boards in Unicorn: peripherals, flash, modem, radio air, energy."""
