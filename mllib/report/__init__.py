"""The report of a verdict as one HTML page: arrays and figures in, a page out that needs nothing else. Pure."""
