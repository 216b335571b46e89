"""The firmware's core compiled for the host: the same C as on the boards, flash as an array."""
