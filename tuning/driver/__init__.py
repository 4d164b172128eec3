"""The process of a sweep: begin, run, go on, extend, rebuild."""
