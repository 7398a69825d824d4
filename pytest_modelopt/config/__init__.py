"""What is allowed: the budgets file, its limits and units, and the judgement of a case against them."""
