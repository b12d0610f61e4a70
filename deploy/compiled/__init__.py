"""The engine as machine code: mypyc compiles its Python, as it stands, for hosts where policyd's processor time matters."""
