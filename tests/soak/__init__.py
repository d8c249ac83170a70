"""Everything at once, at random, for hours: `make soak`."""
