"""The gateway plane: protocol machines, the journal, identity and policy. `python -m gateway`."""
