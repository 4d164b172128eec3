"""A genotype as a network: operations, stem, cells, and what it costs, by arithmetic or measured."""
