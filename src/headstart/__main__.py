"""``python -m headstart``."""

from headstart.commands.cli import main

main()
