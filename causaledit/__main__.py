"""`python -m causaledit` is the command `causaledit`."""

from causaledit.cli.app import main

if __name__ == "__main__":
    main()
