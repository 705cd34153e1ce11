"""The commands, one file each; training, and the report pages."""
