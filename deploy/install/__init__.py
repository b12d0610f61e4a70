"""`make install` and `make uninstall`: standard library only, since nothing is installed yet when it runs."""
