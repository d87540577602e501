"""What a person needs around the gateway: management API, dashboard, metrics and the inspector, on ports of their own."""
