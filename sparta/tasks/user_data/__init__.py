"""A user's own data: read in the field's common forms, turned into items, and scored on as the task `own`."""
