"""What of a variant lies in files: how it is saved, shipped, loaded again, weighed and known again."""
