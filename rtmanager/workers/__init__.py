"""The loops that run beside the operations, one module each."""
