"""The figures: `style` for all, and a module for each notebook.

Functions that notebooks call take numbers, and return a figure with a description, fig.alt.
"""
