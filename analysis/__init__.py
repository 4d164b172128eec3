"""Everything that reads stored records: Parquet dataset, figures, drawings, report, export. Never torch, never ray."""
