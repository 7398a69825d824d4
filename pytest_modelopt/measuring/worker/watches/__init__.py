"""What this process and others read and open, as Python and the kernel tell it."""
