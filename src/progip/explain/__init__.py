"""Where a network looks, with and without a fault: Ablation-CAM of stored runs and of networks."""
