"""What the larger commands of the CLI do."""
