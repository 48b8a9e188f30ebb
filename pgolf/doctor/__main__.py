"""The command's own process."""

import sys

from pgolf.doctor import main

if __name__ == "__main__":
    sys.exit(main())
