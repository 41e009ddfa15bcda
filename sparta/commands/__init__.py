"""What the programs of jobs/ do, one module each. The only room that speaks to a person."""
