"""What each SuperNode runs."""

from gateway.federation import app

__all__ = ["app"]
