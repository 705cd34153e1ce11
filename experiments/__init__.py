"""What is run: one file a command, and the pages that come out."""
