"""`python -m nntrain` is the command `nntrain`."""
import sys

from nntrain.cli.main import main

if __name__ == '__main__': sys.exit(main())
