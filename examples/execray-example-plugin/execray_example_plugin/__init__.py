"""An alert sink and a response action for ExecRay."""
