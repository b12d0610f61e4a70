"""What every event passes through as machine code: mypyc compiles the Python, as it stands, where processor time matters."""
