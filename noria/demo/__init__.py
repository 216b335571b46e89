"""One accelerated growing season on real parts: emulated nodes, broker, gateways, server, dashboard."""
