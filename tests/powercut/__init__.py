"""The power fails at every moment of a run, and takes with it whatever was not synced: what is left must be enough."""
