"""Training: pictures in memory, degradations in batches, one loop for CPU, GPU and several GPUs."""
