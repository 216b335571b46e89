"""``python -m gateway``, where only the gateway is installed."""

from gateway.cli import app

app()
