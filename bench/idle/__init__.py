"""What a manager costs that has nothing to do."""
