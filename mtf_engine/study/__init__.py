"""Studies: comparisons of methods in cells, the tables of the paper, and what a world of synthetic users holds."""
