"""`python -m livedex`."""

from livedex.cli import main

main()
