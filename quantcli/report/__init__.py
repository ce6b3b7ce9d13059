"""What people see: the terminal, pictures and pages. The only code that writes to a terminal is here."""
