"""One bit that pays: kernels for frozen binary networks."""
