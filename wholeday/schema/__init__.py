"""Declare what a record is: its fields, their types, and the tables they become."""
