"""Pure decisions: no I/O, no clock, no environment. Everything here is a function of its arguments."""
