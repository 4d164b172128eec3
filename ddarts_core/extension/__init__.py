"""What a plug-in adds to the tables, and the laws that every entry keeps."""
