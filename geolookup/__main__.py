"""``python -m geolookup`` is the geolookup command."""

from geolookup.cli import main

if __name__ == "__main__":
    main()
