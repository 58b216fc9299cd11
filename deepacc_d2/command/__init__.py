"""The command ``deepacc`` and the make targets: one table of what they take.

Standard library only: make reads the table before the environment exists, and ``deepacc --help``
must not wait for PyTorch.
"""
