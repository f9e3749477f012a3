"""``python -m geolookup`` is the geolookup command."""

if __name__ == "__main__":
    from geolookup_command import main

    main()
