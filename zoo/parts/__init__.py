"""Parts that two systems or more are built from, each tested against an independent reference."""
