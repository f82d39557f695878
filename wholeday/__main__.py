"""`python -m wholeday`: the command line beside Luigi's."""

from wholeday.commands.cli import main

if __name__ == "__main__":
    main()
