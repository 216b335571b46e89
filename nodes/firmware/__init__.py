"""The nodes' firmware: C sources as a PlatformIO project, and the Python that builds them."""
