"""The contract suites behind `bench check`: one file per kind of thing that can be registered."""
