"""What surrounds any command: its command line, its results, its scans and records on disk."""
