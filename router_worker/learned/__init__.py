"""What the router learned from examples, as arrays: nothing here runs a model or calls one.

Deciding needs numpy alone; training needs scikit-learn (`pip install modelyard[train]`).
"""
