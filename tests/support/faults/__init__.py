"""The fault harness: real workers as processes, faults by script, and the invariants of the index checked throughout."""
