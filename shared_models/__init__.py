"""What nodes, gateways, server and dashboards must agree on, each thing defined once."""
