"""What it costs to pass another server's stream on."""
