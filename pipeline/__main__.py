"""`python -m pipeline`: the command line beside Luigi's."""

from pipeline.cli import main

if __name__ == "__main__":
    main()
