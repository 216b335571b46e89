"""On-target tests and the runner that emulates them."""
