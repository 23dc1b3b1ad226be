"""What is done to the text of a final answer. Pure functions, one file for each kind of step."""
