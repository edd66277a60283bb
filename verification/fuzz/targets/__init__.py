"""One target a file: what it runs, what it may raise, and the inputs that it begins with."""
