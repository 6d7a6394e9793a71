"""What the paper measures, as functions of any network: a module for each figure or table."""
