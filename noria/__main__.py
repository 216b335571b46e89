"""``python -m noria`` is the console script."""

from noria.cli import main

main()
