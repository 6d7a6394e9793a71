"""What judges: the paper's claims, each with the rule by which results are held against it, and their page."""
