"""`python -m mhiflab`."""

from mhiflab.cli import main

main()
