"""The commands, a module for each kind of question; `suite.cli` makes one program of them."""
