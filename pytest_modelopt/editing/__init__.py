"""budgets.yaml out: values set in place, models added, a first file written."""
