"""What dev/stack, the demo and the integration tests share."""
