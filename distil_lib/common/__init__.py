"""What every room uses: errors, files, paths, the Hub, command lines, random streams."""
