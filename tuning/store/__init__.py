"""The folder of a study, or its place in an object store: who works in it, what lies in it, how far the study is."""
