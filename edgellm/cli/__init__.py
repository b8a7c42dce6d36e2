"""The `edgellm` command, one file per verb."""
