"""`python -m persia` is the `persia` command."""

from persia.cli import main

main()
