"""Workers that are taken away under load, as an autoscaler does it."""
