"""From text to tokens: built-in corpora, data sets of the hub, files, prompts."""
