"""`python -m perceiver_lightning fit|test|predict|summary|check ...`: `perceiver_lightning.cli.command` says more."""

import sys

if __name__ == "__main__":
    try:
        from perceiver_lightning.cli import main
    except KeyboardInterrupt:  # the imports take seconds
        sys.exit(130)
    main()
