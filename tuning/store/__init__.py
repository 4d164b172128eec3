"""The folder of a study, or its copy in an object store: who works in it, what lies in it, how far it is."""
