"""Commands about whole campaigns, one a file: ``add`` makes known what a command takes."""
