"""Our pages in Flower."""
