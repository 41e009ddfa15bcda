"""From phases to jobs: dealing, attempts, where tasks run, the driver. Nothing here knows what a combat is."""
