# Nothing to use: importing it makes the modules of the core.
