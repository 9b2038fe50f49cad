"""`python -m mhiflab`."""

from mhiflab.cli.main import main

main()
