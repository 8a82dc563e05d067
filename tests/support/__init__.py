"""What several test files use, one module for each thing that a test has to do with."""
