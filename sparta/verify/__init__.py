"""A state checked from beginning to end, and repaired where that is safe."""
