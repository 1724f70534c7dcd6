"""`python -m perceiver_lightning fit|validate|test|predict ...`; see `perceiver_lightning.cli`."""

from perceiver_lightning.cli import main

if __name__ == "__main__":
    main()
