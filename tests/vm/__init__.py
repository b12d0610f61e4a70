"""ExecRay on other kernels: each boots in a virtual machine of its own. See README.md."""
