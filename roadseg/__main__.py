"""`python -m roadseg` is the command `roadseg`."""

from roadseg.cli import main

main()
