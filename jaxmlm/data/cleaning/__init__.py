"""Cleaning of a text while its store is made: near duplicates, and documents that hold what a model is evaluated on.

Each document is marked where it is encoded, on any machine, by its words alone: the keys of its bands, and which
evaluation sets it holds n-grams of. What is dropped is decided where the parts become a store, over all marks.
"""
