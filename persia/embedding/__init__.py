"""Embedding tables and the embedding worker's kernels: import what you need from the modules of this folder.

Nothing is imported here, because the simulator needs `placement` alone and must not wait for a compiler.
"""
