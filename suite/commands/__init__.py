"""The subcommands of `prunebench`, grouped by topic; `suite.cli` combines them into one program."""
