"""`make bench`: what the budgets of the design are measured with. Nothing here is a test, and no test is timed."""
