"""What soak_fleet.py consists of."""
