"""Models of PyTorch before and after `normkernels.torch.replace_norms`: steps, norms and memory."""
