"""The process of a sweep: it begins a study, runs it, goes on with it, extends it, and rebuilds what was lost."""
