"""What a search finds, as data: operation names, edges, cells, genotypes, and larger genotypes. Torch-free."""
