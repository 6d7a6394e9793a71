"""What draws: arrays to pages, a module for each figure, on `canvas`."""
