"""What the SuperLink runs."""

from server.federation import app

__all__ = ["app"]
