"""The state directory: all state is on disk, and only this room reads and writes its files."""
