"""A case's page as a laboratory keeps it: cells, clones, karyograms, signatures; for print."""
