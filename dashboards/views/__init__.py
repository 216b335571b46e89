"""The pages, one module each; every one draws itself with a function named after it."""
