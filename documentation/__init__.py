"""What makes the documentation site of docs/: pages of reference from the code, and links for the site."""
