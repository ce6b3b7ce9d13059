"""`python -m quantcli`."""

from quantcli.cli import main

if __name__ == "__main__":
    main()
