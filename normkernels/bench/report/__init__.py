"""`normkernels report`: results as one page to look at, and its charts as pictures."""
