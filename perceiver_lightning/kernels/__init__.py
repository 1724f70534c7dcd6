"""Attention's inner steps, in pure torch and C++; nothing here knows of models.

plain_attention.py   softmax(q k^T) v: fused kernels, or products of matrices where those are faster
grid_attention.py    attention over a grid with separable logits: the mathematics, its gradients, torch's operations
dispatch.py          which backend walks over the grid, and the one place to override the choice
torch_blocks.py      the backend in torch operations, for every device
cpu.py, cpu.cpp      the backend in C++, for CPUs
costs.py             what dense and separable attention cost, and which is cheaper
"""
