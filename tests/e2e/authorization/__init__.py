"""Who may do what: the rules, the table of all operations, and callers of every kind."""
