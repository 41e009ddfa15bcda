"""What the commands do, one module each; their command lines are in programs/. The only room that speaks to a person."""
