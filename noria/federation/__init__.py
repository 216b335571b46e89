"""The Flower app: which ServerApp and which ClientApp a run starts."""
