"""`python -m wholeday`: the program `wholeday`."""

from wholeday.commands.cli import main

if __name__ == "__main__":
    main()
