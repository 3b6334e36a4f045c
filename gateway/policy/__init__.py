"""What people may do: statements analysed, Cedar asked."""
