"""The same function in less time, for attacks: never what decides an outcome."""
