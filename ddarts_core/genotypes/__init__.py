"""What a search finds, as data: operation names, edges, cells, genotypes, and larger ones made of them. Torch-free."""
