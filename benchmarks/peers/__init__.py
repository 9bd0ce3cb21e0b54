"""What the peers run: imports nothing of ours, since it runs in the peers' environment."""
