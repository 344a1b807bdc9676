"""Days of weather into features: clean, derive, scale, encode."""
