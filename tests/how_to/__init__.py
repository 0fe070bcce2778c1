"""The pages about moves, followed literally: their commands, at a shell, on servers of their own."""
