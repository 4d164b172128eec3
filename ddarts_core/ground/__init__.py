"""What all other rooms stand on: errors, whole files, settings as mappings, tables of entries, plug-ins. Torch-free."""
