"""NYU Depth V2: the labelled release."""
