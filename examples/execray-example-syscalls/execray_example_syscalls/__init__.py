"""Nothing: ExecRay reads execray.toml and loads the object beside it. No code of this package runs."""
