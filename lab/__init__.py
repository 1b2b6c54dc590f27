"""The apparatus around helpers.py: benchmark, figures, reports, a language model, the record."""
