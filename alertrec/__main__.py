"""`python -m alertrec` is the command line."""

from alertrec.cli import main

main()
