"""What operators ask of a running service: the generated code of its contract."""
