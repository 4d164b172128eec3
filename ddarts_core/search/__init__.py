"""The bilevel search: its step, the gradient of the alphas, and from gates to a genotype."""
